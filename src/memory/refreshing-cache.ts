import { LRUCache } from 'lru-cache';
import type { Clock } from '../domain/clock.ts';

/** What was loaded, and how long it is good for, counted from before it was asked for. Milliseconds. */
export interface Lasting<Value> {
  value: Value;
  lifetimeMs: number;
}

export interface RefreshingCacheOptions {
  /** Most values held; the one unused for longest goes first. */
  max: number;
  /** A value is not given out any more this long before its end. */
  marginMs: number;
  /** A value is forgotten this long after its last use. */
  idleMs: number;
  /** Counts spans only: one that nobody sets (monotonicClock). */
  clock: Clock;
  /** From 0 to 1: spreads refreshes, so that what was loaded together is not all loaded again together. Default Math.random. */
  random?: () => number;
  /** After these failures of a refresh the old value is given up, too; after others it is used to its end. */
  isFinal?: (error: unknown) => boolean;
  /** Nobody waits for a refresh, so its failure is told here. */
  onRefreshFailed?: (error: unknown) => void;
}

interface Entry<Value> {
  value: Value;
  refreshAt: number;
  endsAt: number;
  usedAt: number;
}

/** The part of a life after which a value is loaded anew: between these two. */
const REFRESH_FROM = 0.65;
const REFRESH_TO = 0.85;
const RETRY_MS = 15_000;
const SWEEP_MS = 30_000;

/**
 * A bounded memory of things that end by themselves. Many who ask at once cause one load; what nears its end is loaded anew while the old
 * value is still given out, so that nobody waits. A failure is given to those who wait for it and never kept.
 */
export class RefreshingCache<Value> implements Disposable {
  readonly #options: RefreshingCacheOptions;
  readonly #entries: LRUCache<string, Entry<Value>>;
  readonly #loading = new Map<string, Promise<Value>>();
  readonly #sweeper: NodeJS.Timeout;

  constructor(options: RefreshingCacheOptions) {
    this.#options = options;
    this.#entries = new LRUCache({ max: options.max });
    this.#sweeper = setInterval(this.sweep.bind(this), SWEEP_MS).unref();
  }

  /** How many values are held. */
  get size(): number {
    return this.#entries.size;
  }

  /** Whether `get` would answer without loading anew. */
  has(key: string): boolean {
    const entry = this.#entries.peek(key);
    return (entry !== undefined && this.#options.clock.now() < entry.endsAt) || this.#loading.has(key);
  }

  get(key: string, load: () => Promise<Lasting<Value>>): Promise<Value> {
    const entry = this.#entries.get(key);
    const now = this.#options.clock.now();
    if (entry === undefined || now >= entry.endsAt) return this.#loading.get(key) ?? this.#load(key, load);
    entry.usedAt = now;
    if (now >= entry.refreshAt && !this.#loading.has(key)) this.#refresh(key, load, entry);
    return Promise.resolve(entry.value);
  }

  /** What is in memory, whether or not its end has come. Loads nothing, and counts as no use. */
  peek(key: string): Value | undefined {
    return this.#entries.peek(key)?.value;
  }

  /** Gives one value up, so that the next who asks waits for another; one that is being loaded already is that other. */
  giveUp(key: string): void {
    this.#entries.delete(key);
  }

  /** Has one value loaded anew as soon as somebody asks for it; till then, and if that fails, it serves on. */
  hasten(key: string): void {
    const entry = this.#entries.peek(key);
    if (entry !== undefined) entry.refreshAt = Math.min(entry.refreshAt, this.#options.clock.now());
  }

  /** Forgets every value whose key begins with `prefix`; what is being loaded for them is not kept. */
  evict(prefix: string): void {
    for (const key of [...this.#entries.keys()]) if (key.startsWith(prefix)) this.#entries.delete(key);
    for (const key of [...this.#loading.keys()]) if (key.startsWith(prefix)) this.#loading.delete(key);
  }

  /** Forgets what has ended and what nobody used for a while. */
  sweep(): void {
    const { clock, idleMs } = this.#options;
    const now = clock.now();
    for (const [key, { endsAt, usedAt }] of [...this.#entries.entries()])
      if (now >= endsAt || now - usedAt >= idleMs) this.#entries.delete(key);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#sweeper);
    this.evict('');
  }

  #load(key: string, load: () => Promise<Lasting<Value>>): Promise<Value> {
    const askedAt = this.#options.clock.now();
    const loading: Promise<Value> = load().then(
      (loaded) => {
        // Only if nobody evicted it meanwhile.
        if (this.#settle(key, loading)) this.#keep(key, loaded, askedAt);
        return loaded.value;
      },
      (error: unknown) => {
        this.#settle(key, loading);
        throw error;
      },
    );
    this.#loading.set(key, loading);
    return loading;
  }

  #keep(key: string, { value, lifetimeMs }: Lasting<Value>, askedAt: number): void {
    const { clock, marginMs, random = Math.random } = this.#options;
    const share = REFRESH_FROM + (REFRESH_TO - REFRESH_FROM) * random();
    this.#entries.set(key, {
      value,
      refreshAt: askedAt + lifetimeMs * share,
      endsAt: askedAt + lifetimeMs - marginMs,
      usedAt: clock.now(),
    });
  }

  #refresh(key: string, load: () => Promise<Lasting<Value>>, old: Entry<Value>): void {
    const { clock, isFinal, onRefreshFailed } = this.#options;
    this.#load(key, load).catch((error: unknown) => {
      old.refreshAt = clock.now() + RETRY_MS;
      if (isFinal?.(error) === true && this.#entries.peek(key) === old) this.#entries.delete(key);
      onRefreshFailed?.(error);
    });
  }

  /** @returns whether this load is still the one that the key waits for. */
  #settle(key: string, loading: Promise<Value>): boolean {
    return this.#loading.get(key) === loading && this.#loading.delete(key);
  }
}
