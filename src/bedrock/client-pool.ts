import type { Clock } from '../domain/clock.ts';

export interface ClientPoolOptions<Client> {
  /** Clients kept. Calls in flight may hold more for as long as they last: a call never waits for a place. */
  clientsMax: number;
  /** Milliseconds an unused client is kept. */
  idleMs: number;
  clock: Clock;
  /** Called exactly once for each client, when nobody uses it any more. */
  destroy: (client: Client) => void;
}

/** The right to use a client until `release`, which may be called more than once. */
export interface Lease<Client> {
  readonly client: Client;
  release(): void;
}

interface Entry<Client> {
  key: string;
  client: Client;
  users: number;
  /** Clock's milliseconds when the last user left; meaningless while `users` is above zero. */
  idleSince: number;
  /** Out of the pool: destroyed as soon as the last user leaves. */
  evicted: boolean;
}

/** Clients by key, least recently used first out. One that is in use outlives its eviction until its last user is done. */
export class ClientPool<Client> {
  readonly #options: ClientPoolOptions<Client>;
  /** In order of last use, so that unused clients stand in order of `idleSince`. */
  readonly #entries = new Map<string, Entry<Client>>();

  constructor(options: ClientPoolOptions<Client>) {
    this.#options = options;
  }

  /** Clients kept, in use or not. */
  get size(): number {
    return this.#entries.size;
  }

  /** Gives the client of this key, made now if there is none. Callers at the same time share it. */
  acquire(key: string, make: () => Client): Lease<Client> {
    const entry = this.#entries.get(key) ?? { key, client: make(), users: 0, idleSince: 0, evicted: false };
    entry.users += 1;
    this.#moveToEnd(entry);
    for (const oldest of this.#entries.values()) {
      if (this.#entries.size <= this.#options.clientsMax) break;
      this.#evict(oldest);
    }
    return this.#lease(entry);
  }

  /** Drops clients nobody used for `idleMs`. To be called by a timer: keys must not stay in memory because traffic stopped. */
  sweep(): void {
    const expired = this.#options.clock.now() - this.#options.idleMs;
    for (const entry of this.#entries.values()) {
      if (entry.users > 0) continue;
      if (entry.idleSince > expired) break;
      this.#evict(entry);
    }
  }

  /** Empties the pool. Clients in use are destroyed when their users are done. */
  clear(): void {
    for (const entry of this.#entries.values()) this.#evict(entry);
  }

  #lease(entry: Entry<Client>): Lease<Client> {
    let held = true;
    return {
      client: entry.client,
      release: () => {
        if (!held) return;
        held = false;
        entry.users -= 1;
        if (entry.users === 0) this.#becomeIdle(entry);
      },
    };
  }

  #becomeIdle(entry: Entry<Client>): void {
    if (entry.evicted) {
      this.#options.destroy(entry.client);
      return;
    }
    entry.idleSince = this.#options.clock.now();
    this.#moveToEnd(entry);
  }

  #moveToEnd(entry: Entry<Client>): void {
    this.#entries.delete(entry.key);
    this.#entries.set(entry.key, entry);
  }

  #evict(entry: Entry<Client>): void {
    this.#entries.delete(entry.key);
    entry.evicted = true;
    if (entry.users === 0) this.#options.destroy(entry.client);
  }
}
