import { createPublicKey, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { z } from 'zod';
import { climb, leafHash } from './merkle.ts';

const hash32 = z.string().regex(/^[0-9a-f]{64}$/);
const whole = z.int().min(1);

/** What is signed of all chains: the text of this object, byte for byte. */
const bodyShape = z.strictObject({
  format: z.literal('mbk-checkpoint-v1'),
  /** The deployment. */
  origin: z.string().regex(/^[a-z0-9-]{1,32}$/),
  number: whole,
  at: z.iso.datetime(),
  /** How many chains the tree has. */
  chains: whole,
  root: hash32,
  /** SHA-256 of the body of the checkpoint before; zeros for the first. */
  previous: hash32,
});
export type CheckpointBody = z.output<typeof bodyShape>;

/** A checkpoint as it is stored, copied and handed out. */
export const signedShape = z.strictObject({
  body: z.string().max(4_096),
  /** ECDSA_SHA_256 over messageOf(): DER in base64. */
  signature: z.base64().max(200),
  /** ARN of the KMS key. */
  keyId: z.string().max(2_048),
  /** SPKI in PEM. For convenience: whoever checks should have it from elsewhere. */
  publicKey: z.string().max(1_000),
});
export type SignedCheckpoint = z.output<typeof signedShape>;

/** A checkpoint for one merchant: with the leaf of its chain and the path from there to the root. Keep it, and nobody can rewrite what it covers. */
export const provenShape = signedShape.extend({
  leaf: z.strictObject({
    merchantId: z.string(),
    seq: whole,
    hash: hash32,
    salt: hash32,
    index: z.int().min(0),
    path: z.array(hash32).max(64),
  }),
});
export type ProvenCheckpoint = z.output<typeof provenShape>;

/** The bytes under a signature: what they are for and by which key, then the body. */
export function messageOf({ body, keyId }: Pick<SignedCheckpoint, 'body' | 'keyId'>): Buffer {
  return Buffer.from(`mbk-checkpoint-v1\n${keyId}\n${body}`, 'utf8');
}

/** Undefined when the text is not, to the byte, what a checkpoint's body is written as. */
export function parseBody(text: string): CheckpointBody | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { data } = bodyShape.safeParse(value);
  return data !== undefined && JSON.stringify(data) === text ? data : undefined;
}

/** @throws Error when it is not a public key on P-256, in PEM. */
export function readPublicKey(pem: string): KeyObject {
  const key = createPublicKey(pem);
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new TypeError('not a public key of the kind ECC_NIST_P256');
  return key;
}

export function toPem(key: KeyObject): string {
  return key.export({ type: 'spki', format: 'pem' }).toString();
}

/** Whether this key signed exactly this checkpoint. */
export function isSignedBy(checkpoint: SignedCheckpoint, key: KeyObject): boolean {
  const signature = Buffer.from(checkpoint.signature, 'base64');
  return (
    signature.toString('base64') === checkpoint.signature &&
    verify('sha256', messageOf(checkpoint), { key, dsaEncoding: 'der' }, signature)
  );
}

/**
 * What is wrong with a signed checkpoint, in a few words; undefined and its body when nothing is.
 * @param keys those that are believed.
 */
export function checkSigned(
  checkpoint: SignedCheckpoint,
  keys: readonly KeyObject[],
): { body: CheckpointBody; problem?: undefined } | { problem: string } {
  const body = parseBody(checkpoint.body);
  if (body === undefined) return { problem: 'it has not the form of a checkpoint' };
  const key = keys.find((one) => toPem(one) === checkpoint.publicKey);
  if (key === undefined) return { problem: 'it names another public key' };
  if (!isSignedBy(checkpoint, key)) return { problem: 'its signature does not fit' };
  return { body };
}

/** The same for a checkpoint with the proof of one chain. */
export function checkProven(
  checkpoint: ProvenCheckpoint,
  keys: readonly KeyObject[],
): { body: CheckpointBody; problem?: undefined } | { problem: string } {
  const signed = checkSigned(checkpoint, keys);
  if (signed.problem !== undefined) return signed;
  const { leaf } = checkpoint;
  const path = leaf.path.map((node) => Buffer.from(node, 'hex'));
  const root = climb(leafHash(leaf), { index: leaf.index, size: signed.body.chains }, path);
  if (root?.toString('hex') !== signed.body.root) return { problem: 'its proof does not lead to its root' };
  return signed;
}
