import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import type { CallId, MerchantId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import { sealingKeyId } from './webhook-secrets.ts';

/** What a sealed answer is bound to. `idempotencyKey` is the raw header: without it, and without the service's key, it stays shut. */
export interface AnswerBinding {
  merchantId: MerchantId;
  callId: CallId;
  idempotencyKey: string;
}

const LABEL = 'mbk-answer-1';
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * The box in which an answer lies in the database: `iv 12 | ciphertext | tag 16`, AES-256-GCM.
 * key = HKDF-SHA-256(the service's session key, salt: the raw Idempotency-Key, info: label and merchant); aad = label, merchant and call.
 * The database has the hash of the Idempotency-Key and not the service's key: alone it cannot open anything.
 */
export class AnswerSeal {
  /** The first seals; all open. */
  readonly #keys: readonly [Secret<Buffer>, ...Secret<Buffer>[]];
  /** Names the key that seals. */
  readonly keyId: Buffer;

  constructor(keys: readonly [Secret<Buffer>, ...Secret<Buffer>[]]) {
    this.#keys = keys;
    this.keyId = sealingKeyId(keys[0]);
  }

  seal(plaintext: Buffer, binding: AnswerBinding): Buffer {
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv('aes-256-gcm', derive(this.#keys[0], binding), iv);
    cipher.setAAD(aadOf(binding));
    return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  }

  /** Undefined when it was sealed under another key, for another call, or altered: the answer is then as good as gone. */
  open(sealed: Uint8Array, binding: AnswerBinding): Buffer | undefined {
    if (sealed.length < IV_BYTES + TAG_BYTES) return undefined;
    for (const key of this.#keys) {
      const opened = openWith(derive(key, binding), Buffer.from(sealed), aadOf(binding));
      if (opened !== undefined) return opened;
    }
    return undefined;
  }
}

function openWith(key: Buffer, sealed: Buffer, aad: Buffer): Buffer | undefined {
  const end = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, IV_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(aad).setAuthTag(sealed.subarray(end));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(IV_BYTES, end)), decipher.final()]);
  } catch {
    return undefined;
  }
}

function derive(key: Secret<Buffer>, { merchantId, idempotencyKey }: AnswerBinding): Buffer {
  return Buffer.from(hkdfSync('sha256', key.reveal(), idempotencyKey, `${LABEL}\n${merchantId}`, 32));
}

/** Neither id can hold a line feed, so no two bindings give the same bytes. */
function aadOf({ merchantId, callId }: AnswerBinding): Buffer {
  return Buffer.from(`${LABEL}\n${merchantId}\n${callId}`);
}
