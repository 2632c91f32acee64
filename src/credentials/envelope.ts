import {
  createCipheriv,
  createDecipheriv,
  createHash,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';

/*
 * The box a stored secret lies in (docs/security.md). Pure: bytes in, bytes out; where the bytes are kept is the vault's business.
 *
 *   magic "MBK" 3 | suite 0x01 1 | salt 32 | commitment 32 | iv 12 | length of ciphertext 4 | ciphertext | tag 16
 *
 * Suite 1, the construction of the AWS Encryption SDK's suite 0x0478 (lengths are big-endian uint32):
 *   aad        = magic, suite, number of context fields, then each field's name and value, each after its length in bytes
 *   derived    = HKDF-SHA-512(ikm: data key, salt, info: "mbk-envelope-1" || SHA-512(aad), 64 bytes)
 *   key        = derived[0..32], commitment = derived[32..64]
 *   ciphertext = AES-256-GCM(key, iv, aad, plaintext)
 *
 * The commitment lets an envelope open under one data key and one context only, which GCM alone does not promise. Every salt gives a
 * fresh key, so an iv never repeats under a key. Test vector: test/unit/envelope.test.ts.
 */

/** What an envelope is bound to. Identifiers only: KMS shows the same fields in clear in CloudTrail. */
export interface EnvelopeContext {
  app: 'mbk';
  /** The deployment, e.g. `production`. */
  env: string;
  merchant_id: string;
  credential_id: string;
  version: string;
  purpose: 'aws-credential';
}

/** Why an envelope stays shut. Says nothing about its contents. */
export class EnvelopeError extends Error {
  override readonly name = 'EnvelopeError';
}

const HEADER = Buffer.from([0x4d, 0x42, 0x4b, 0x01]);
const INFO_LABEL = Buffer.from('mbk-envelope-1');
const FIELDS = ['app', 'env', 'merchant_id', 'credential_id', 'version', 'purpose'] as const;

const KEY_BYTES = 32;
const SALT_BYTES = 32;
const COMMITMENT_BYTES = 32;
const IV_BYTES = 12;
const LENGTH_BYTES = 4;
const TAG_BYTES = 16;
const FIXED_BYTES = HEADER.length + SALT_BYTES + COMMITMENT_BYTES + IV_BYTES + LENGTH_BYTES + TAG_BYTES;

/** Secrets Manager takes 65,536 bytes. */
const PLAINTEXT_BYTES_MAX = 65_536 - FIXED_BYTES;

/**
 * Seals `plaintext` for one context.
 * @param dataKey 32 bytes, used for this version of this credential only; the caller wipes it.
 * @param random replaced in the test vector only.
 * @throws EnvelopeError for a data key or plaintext of an impossible size.
 */
export function seal(
  plaintext: Buffer,
  dataKey: Buffer,
  context: EnvelopeContext,
  random: (bytes: number) => Buffer = randomBytes,
): Buffer {
  if (plaintext.length === 0 || plaintext.length > PLAINTEXT_BYTES_MAX)
    throw new EnvelopeError('plaintext has an impossible size');
  const salt = random(SALT_BYTES);
  const iv = random(IV_BYTES);
  const aad = associatedData(context);
  const { key, commitment } = derive(dataKey, salt, aad);
  const cipher = createCipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES }).setAAD(aad);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  key.fill(0);
  const parts = [HEADER, salt, commitment, iv, uint32(ciphertext.length), ciphertext, cipher.getAuthTag()];
  return Buffer.concat(parts);
}

/**
 * Opens what `seal` made with the same data key and context. The caller wipes the result.
 * @throws EnvelopeError for anything else: another key or context, one bit, one byte less or more.
 */
export function open(envelope: Buffer, dataKey: Buffer, context: EnvelopeContext): Buffer {
  const parts = parse(envelope);
  const aad = associatedData(context);
  const { key, commitment } = derive(dataKey, parts.salt, aad);
  try {
    if (!timingSafeEqual(commitment, parts.commitment))
      throw new EnvelopeError('sealed under another key or for another context');
    const decipher = createDecipheriv('aes-256-gcm', key, parts.iv, { authTagLength: TAG_BYTES });
    decipher.setAAD(aad).setAuthTag(parts.tag);
    return Buffer.concat([decipher.update(parts.ciphertext), finalOf(decipher)]);
  } finally {
    key.fill(0);
  }
}

function finalOf(decipher: { final(): Buffer }): Buffer {
  try {
    return decipher.final();
  } catch {
    throw new EnvelopeError('altered');
  }
}

/** Cuts an envelope into its parts. Every byte belongs to one of them, or it is refused. */
function parse(envelope: Buffer) {
  if (envelope.length <= FIXED_BYTES) throw new EnvelopeError('too short');
  if (!envelope.subarray(0, HEADER.length).equals(HEADER)) throw new EnvelopeError('not an envelope');
  let at = HEADER.length;
  const take = (bytes: number): Buffer => envelope.subarray(at, (at += bytes));
  const salt = take(SALT_BYTES);
  const commitment = take(COMMITMENT_BYTES);
  const iv = take(IV_BYTES);
  const length = take(LENGTH_BYTES).readUInt32BE();
  if (envelope.length !== FIXED_BYTES + length) throw new EnvelopeError('length does not match');
  return { salt, commitment, iv, ciphertext: take(length), tag: take(TAG_BYTES) };
}

function derive(dataKey: Buffer, salt: Buffer, aad: Buffer): { key: Buffer; commitment: Buffer } {
  if (dataKey.length !== KEY_BYTES) throw new EnvelopeError('data key has an impossible size');
  const info = Buffer.concat([INFO_LABEL, createHash('sha512').update(aad).digest()]);
  const derived = Buffer.from(hkdfSync('sha512', dataKey, salt, info, KEY_BYTES + COMMITMENT_BYTES));
  return { key: derived.subarray(0, KEY_BYTES), commitment: derived.subarray(KEY_BYTES) };
}

/** Canonical and injective: no two headers and contexts give the same bytes. */
function associatedData(context: EnvelopeContext): Buffer {
  const fields = FIELDS.flatMap((name) => [lengthPrefixed(name), lengthPrefixed(context[name])]);
  return Buffer.concat([HEADER, uint32(FIELDS.length), ...fields]);
}

function lengthPrefixed(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([uint32(bytes.length), bytes]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
