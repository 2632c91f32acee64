import { createCipheriv, createDecipheriv, createSecretKey, randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../domain/clock.ts';
import type { StoredMaterial } from '../domain/credential.ts';
import { decodeMaterial, encodeMaterial } from './material.ts';

export interface StaleCopiesOptions {
  clock: Clock;
  max: number;
  /** How long a copy may be used, from the opening it was made at. Milliseconds; 0 keeps none. */
  keptMs: number;
  /** How long the vault is left alone after it failed. Milliseconds. */
  pauseMs: number;
}

interface Copy {
  iv: Buffer;
  box: Buffer;
  tag: Buffer;
  /** Clock's milliseconds. */
  until: number;
  pausedUntil: number;
}

const ALGORITHM = 'aes-256-gcm';
const SWEEP_EVERY_MS = 60_000;

/**
 * What was opened last, for the time in which the vault does not answer. Sealed under a key of this process, so that what waits here for a bad
 * day is no text that lies about in memory. Whoever uses a copy asks the database first whether its version is still current.
 */
export class StaleCopies implements Disposable {
  readonly #options: StaleCopiesOptions;
  readonly #key = createSecretKey(randomBytes(32));
  readonly #copies: LRUCache<string, Copy>;
  readonly #sweeper: NodeJS.Timeout;

  constructor(options: StaleCopiesOptions) {
    this.#options = options;
    this.#copies = new LRUCache({ max: options.max });
    this.#sweeper = setInterval(this.sweep.bind(this), SWEEP_EVERY_MS).unref();
  }

  get size(): number {
    return this.#copies.size;
  }

  keep(name: string, credential: StoredMaterial): void {
    if (this.#options.keptMs === 0) return;
    const iv = randomBytes(12);
    const plaintext = encodeMaterial(credential);
    const cipher = createCipheriv(ALGORITHM, this.#key, iv).setAAD(Buffer.from(name));
    const box = Buffer.concat([cipher.update(plaintext), cipher.final()]);
    plaintext.fill(0);
    const until = this.#options.clock.now() + this.#options.keptMs;
    this.#copies.set(name, { iv, box, tag: cipher.getAuthTag(), until, pausedUntil: -Infinity });
  }

  /** Undefined when there is none, or it is past its time. */
  open(name: string): StoredMaterial | undefined {
    const copy = this.#find(name);
    if (copy === undefined) return undefined;
    const decipher = createDecipheriv(ALGORITHM, this.#key, copy.iv, { authTagLength: 16 });
    decipher.setAAD(Buffer.from(name)).setAuthTag(copy.tag);
    const plaintext = Buffer.concat([decipher.update(copy.box), decipher.final()]);
    try {
      return decodeMaterial(plaintext);
    } finally {
      plaintext.fill(0);
    }
  }

  /** `usable` goes before the vault is asked; `spare` only after it failed. */
  state(name: string): 'none' | 'spare' | 'usable' {
    const copy = this.#find(name);
    if (copy === undefined) return 'none';
    return this.#options.clock.now() < copy.pausedUntil ? 'usable' : 'spare';
  }

  /** The vault failed: for a while the copy is used without asking it. */
  pause(name: string): void {
    const copy = this.#find(name);
    if (copy !== undefined) copy.pausedUntil = this.#options.clock.now() + this.#options.pauseMs;
  }

  /** Forgets one copy. */
  forget(name: string): void {
    this.#copies.delete(name);
  }

  /** Forgets every copy whose name begins with `prefix`. */
  evict(prefix: string): void {
    for (const name of [...this.#copies.keys()]) if (name.startsWith(prefix)) this.#copies.delete(name);
  }

  /** Forgets everything past its time. */
  sweep(): void {
    for (const name of [...this.#copies.keys()]) this.#find(name);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sweeper);
    this.#copies.clear();
  }

  #find(name: string): Copy | undefined {
    const copy = this.#copies.peek(name);
    if (copy === undefined || this.#options.clock.now() < copy.until) return copy;
    this.#copies.delete(name);
    return undefined;
  }
}
