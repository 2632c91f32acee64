import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import type { MerchantId, WebhookId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';

/** Whose secret it is; sealed for one webhook, it opens for no other. */
export interface WebhookName {
  merchantId: MerchantId;
  webhookId: WebhookId;
}

const PREFIX = 'whsec_';
const KEY_BYTES = 32;
const SECRET_BYTES = 32;
const KEY_ID_BYTES = 8;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const SEALED_BYTES = KEY_ID_BYTES + IV_BYTES + SECRET_BYTES + TAG_BYTES;

/**
 * Signing secrets of webhooks: made here, shown once, kept sealed: key id (8 bytes) || IV (12) || AES-256-GCM of the secret (32) || tag (16).
 * The key comes from the session key by HKDF with a label of its own, the merchant and the webhook are authenticated with it.
 */
export class WebhookSecrets {
  /** By key id in hex; the first one seals. */
  readonly #keys: ReadonlyMap<string, Buffer>;
  readonly #current: string;

  /**
   * @param keys the service's session keys, 32 bytes each: today's, and the one before while it is kept. What is used here is derived from
   * them and opens no session.
   */
  constructor(keys: readonly [Secret<Buffer>, ...(Secret<Buffer> | undefined)[]]) {
    const known = keys.filter((key) => key !== undefined);
    const ids = known.map((key) => sealingKeyId(key).toString('hex'));
    this.#keys = new Map(known.map((key, index) => [ids[index] ?? '', derive(key, 'key', KEY_BYTES)]));
    this.#current = ids[0] ?? '';
  }

  /** Names the key that seals now; the first bytes of everything it sealed. */
  get keyId(): Buffer {
    return Buffer.from(this.#current, 'hex');
  }

  /** A new secret: as the receiver needs it (`whsec_…`, shown this one time), and sealed. */
  make(name: WebhookName): { secret: string; sealed: Buffer } {
    const bytes = randomBytes(SECRET_BYTES);
    return { secret: PREFIX + bytes.toString('base64'), sealed: this.#seal(name, bytes) };
  }

  /** The value of the header `webhook-signature` (Standard Webhooks, v1); undefined when the secret cannot be opened. */
  sign(name: WebhookName, sealed: Uint8Array, message: SignedMessage): string | undefined {
    const secret = this.#open(name, sealed);
    if (secret === undefined) return undefined;
    const { id, timestamp, body } = message;
    const hmac = createHmac('sha256', secret).update(`${id}.${String(timestamp)}.${body}`);
    secret.fill(0);
    return `v1,${hmac.digest('base64')}`;
  }

  /** The same secret sealed with the key of today; undefined when it cannot be opened. */
  reseal(name: WebhookName, sealed: Uint8Array): Buffer | undefined {
    const secret = this.#open(name, sealed);
    return secret === undefined ? undefined : this.#seal(name, secret);
  }

  #seal(name: WebhookName, secret: Buffer): Buffer {
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#keys.get(this.#current) ?? Buffer.alloc(0), iv);
    cipher.setAAD(contextOf(name, this.keyId));
    const text = Buffer.concat([cipher.update(secret), cipher.final()]);
    return Buffer.concat([this.keyId, iv, text, cipher.getAuthTag()]);
  }

  #open(name: WebhookName, given: Uint8Array): Buffer | undefined {
    const sealed = Buffer.from(given);
    const keyId = sealed.subarray(0, KEY_ID_BYTES);
    const key = this.#keys.get(keyId.toString('hex'));
    if (key === undefined || sealed.length !== SEALED_BYTES) return undefined;
    const text = KEY_ID_BYTES + IV_BYTES;
    try {
      const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(KEY_ID_BYTES, text), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(contextOf(name, keyId));
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
      return Buffer.concat([decipher.update(sealed.subarray(text, -TAG_BYTES)), decipher.final()]);
    } catch {
      return undefined;
    }
  }
}

/** Names a session key, 8 bytes, without saying anything about it: what is sealed for the database carries this name. */
export function sealingKeyId(key: Secret<Buffer>): Buffer {
  return derive(key, 'id', KEY_ID_BYTES);
}

export interface SignedMessage {
  /** `webhook-id`: the same for every attempt, so that a receiver can tell a repetition. */
  id: string;
  /** `webhook-timestamp`: seconds, of the attempt. */
  timestamp: number;
  body: string;
}

function derive(key: Secret<Buffer>, what: 'key' | 'id', bytes: number): Buffer {
  const from = key.reveal();
  if (from.length !== 32) throw new TypeError('a session key has 32 bytes');
  return Buffer.from(hkdfSync('sha256', from, '', `mbk-webhook-secret-${what}-v1`, bytes));
}

/** Neither part can hold a slash, so two names never give one text. */
function contextOf({ merchantId, webhookId }: WebhookName, keyId: Buffer): Buffer {
  return Buffer.from(`mbk-webhook-secret-v1/${merchantId}/${webhookId}/${keyId.toString('hex')}`);
}
