import type { ApiKeyId, MerchantId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import type { ApiKeyStore } from './api-key-store.ts';
import type { StoredHash, TokenHasher } from './token-hash.ts';

export interface TokenRehashParts {
  store: Pick<ApiKeyStore, 'rehash' | 'rehashOperator'>;
  hasher: TokenHasher;
  onFailed: (keyId: ApiKeyId, error: unknown) => void;
  /** Most at one time; default 4. What finds no room is hashed at its next use. */
  parallel?: number;
}

/** A token that has just been found good. */
export interface UsedToken {
  id: ApiKeyId;
  secret: Secret;
  /** What it was compared with. */
  stored: StoredHash;
  /** Undefined for operators' keys. */
  merchantId?: MerchantId;
}

const PARALLEL = 4;

/** Moves the hashes of tokens that are used from an older pepper to the one of today, behind the request and never in its way. */
export class TokenRehash implements AsyncDisposable {
  readonly #parts: TokenRehashParts;
  readonly #running = new Map<ApiKeyId, Promise<void>>();

  constructor(parts: TokenRehashParts) {
    this.#parts = parts;
  }

  /** Returns at once. Does nothing for a hash of today, one that is being written, and when there is no room. */
  later(token: UsedToken): void {
    const { hasher, onFailed, parallel = PARALLEL } = this.#parts;
    if (!hasher.isOlder(token.stored) || this.#running.has(token.id) || this.#running.size >= parallel)
      return;
    const run = this.#write(token)
      .catch((error: unknown) => {
        onFailed(token.id, error);
      })
      .finally(() => this.#running.delete(token.id));
    this.#running.set(token.id, run);
  }

  /** Waits for what is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#running.values());
  }

  async #write({ id, secret, stored, merchantId }: UsedToken): Promise<void> {
    const { store, hasher } = this.#parts;
    const change = { before: stored.hash, after: hasher.hash(secret) };
    if (merchantId === undefined) await store.rehashOperator(id, change);
    else await store.rehash(merchantId, id, change);
  }
}
