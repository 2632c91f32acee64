import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Secret } from '../domain/secret.ts';

/** What the database keeps of a token's secret. */
export interface StoredHash {
  hash: Uint8Array;
  pepperVersion: number;
}

export interface Pepper {
  version: number;
  /** 32 bytes, kept outside the database: a dump of it cannot be used to test guesses. */
  key: Secret<Buffer>;
}

/** Compared with where there is no such key, so that an unknown id takes as long as a known one. */
const NOBODY: StoredHash = { hash: new Uint8Array(32), pepperVersion: -1 };

/**
 * HMAC-SHA-256 under a pepper. A fast hash is enough: the secret has 256 random bits, so there is nothing to guess that a slow one would
 * protect.
 */
export class TokenHasher {
  /** By version; the first one hashes. */
  readonly #peppers: ReadonlyMap<number, Secret<Buffer>>;
  readonly #current: Pepper;

  constructor(peppers: readonly [Pepper, ...Pepper[]]) {
    this.#peppers = new Map(peppers.map(({ version, key }) => [version, key]));
    this.#current = peppers[0];
  }

  hash(secret: Secret): { hash: Buffer; pepperVersion: number } {
    return { hash: hmac(this.#current.key, secret), pepperVersion: this.#current.version };
  }

  /** Whether a newer pepper has come since: one of a version to come does not count. */
  isOlder({ pepperVersion }: StoredHash): boolean {
    return pepperVersion < this.#current.version;
  }

  /** In constant time; false for a pepper that is gone, and for an id that nobody has. */
  matches(secret: Secret, stored: StoredHash | undefined): boolean {
    const { hash, pepperVersion } = stored ?? NOBODY;
    const pepper = this.#peppers.get(pepperVersion);
    const expected = hmac(pepper ?? this.#current.key, secret);
    const equal = expected.length === hash.length && timingSafeEqual(expected, hash);
    return equal && pepper !== undefined && stored !== undefined;
  }
}

function hmac(pepper: Secret<Buffer>, secret: Secret): Buffer {
  return createHmac('sha256', pepper.reveal()).update(secret.reveal()).digest();
}
