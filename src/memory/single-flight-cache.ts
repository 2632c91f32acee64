import { LRUCache } from 'lru-cache';
import type { Clock } from '../domain/clock.ts';

export interface SingleFlightOptions {
  /** Most values held; the one unused for longest goes first. */
  max: number;
  /** A value is forgotten this long after it was loaded, however often it is used. */
  ttlMs: number;
  /** A value is forgotten this long after its last use. Default: ttlMs. */
  idleMs?: number;
  clock: Clock;
}

interface Entry<Value> {
  value: Value;
  loadedAt: number;
  usedAt: number;
}

/**
 * A bounded memory in which many who ask at once cause one load. A failure is given to those who wait for it and never kept, and what
 * was evicted while it was being loaded is not kept either.
 * Values past their time are dropped when touched and by a sweep every `idleMs`, so that no secret stays because nobody asks.
 */
export class SingleFlightCache<Value> implements Disposable {
  readonly #options: Required<SingleFlightOptions>;
  readonly #entries: LRUCache<string, Entry<Value>>;
  readonly #loading = new Map<string, Promise<Value>>();
  readonly #sweeper: NodeJS.Timeout | undefined;

  constructor(options: SingleFlightOptions) {
    this.#options = { idleMs: options.ttlMs, ...options };
    this.#entries = new LRUCache({ max: options.max });
    const { idleMs } = this.#options;
    const sweep = this.sweep.bind(this);
    this.#sweeper = Number.isFinite(idleMs) ? setInterval(sweep, idleMs).unref() : undefined;
  }

  /** How many values are held, past their time or not. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether `get` would answer without loading anew. */
  has(key: string): boolean {
    const entry = this.#entries.peek(key);
    return (entry !== undefined && this.#isFresh(entry)) || this.#loading.has(key);
  }

  get(key: string, load: () => Promise<Value>): Promise<Value> {
    const entry = this.#held(key);
    if (entry !== undefined) return Promise.resolve(entry.value);
    return this.#loading.get(key) ?? this.#load(key, load);
  }

  /** What is in memory and not past its time; counts as a use. Loads nothing. */
  held(key: string): Value | undefined {
    return this.#held(key)?.value;
  }

  /** Forgets one value, also one that is still being loaded. */
  forget(key: string): void {
    this.#entries.delete(key);
    this.#loading.delete(key);
  }

  /** Forgets every value whose key begins with `prefix`, those still being loaded included. Cost: one walk over all keys. */
  evict(prefix: string): void {
    for (const key of [...this.#entries.keys()]) if (key.startsWith(prefix)) this.#entries.delete(key);
    for (const key of [...this.#loading.keys()]) if (key.startsWith(prefix)) this.#loading.delete(key);
  }

  /** Forgets everything past its time. */
  sweep(): void {
    for (const [key, entry] of [...this.#entries.entries()])
      if (!this.#isFresh(entry)) this.#entries.delete(key);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sweeper);
    this.evict('');
  }

  #held(key: string): Entry<Value> | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || !this.#isFresh(entry)) return undefined;
    entry.usedAt = this.#options.clock.now();
    return entry;
  }

  #load(key: string, load: () => Promise<Value>): Promise<Value> {
    const loading: Promise<Value> = load().then(
      (value) => {
        const now = this.#options.clock.now();
        // Only if nobody evicted it meanwhile.
        if (this.#settle(key, loading)) this.#entries.set(key, { value, loadedAt: now, usedAt: now });
        return value;
      },
      (error: unknown) => {
        this.#settle(key, loading);
        throw error;
      },
    );
    this.#loading.set(key, loading);
    return loading;
  }

  /** @returns whether this load is still the one that the key waits for. */
  #settle(key: string, loading: Promise<Value>): boolean {
    return this.#loading.get(key) === loading && this.#loading.delete(key);
  }

  #isFresh({ loadedAt, usedAt }: Entry<Value>): boolean {
    const now = this.#options.clock.now();
    return now - loadedAt < this.#options.ttlMs && now - usedAt < this.#options.idleMs;
  }
}
