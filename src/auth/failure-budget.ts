import { LRUCache } from 'lru-cache';
import type { Clock } from '../domain/clock.ts';
import { ServiceError } from '../domain/errors.ts';

export interface FailureBudgetOptions {
  /** Counts spans: one that nobody sets. */
  clock: Clock;
  /** Failed authentications in a minute. */
  perAddressMax: number;
  perKeyMax: number;
  /** Most addresses, and most key ids, that are remembered: about 300 bytes each. */
  entriesMax?: number;
}

const WINDOW_MS = 60_000;
const ENTRIES_MAX = 50_000;

/** How an attempt went. `open`: nobody could say, as when the database is away; it counts as nothing. */
export type Attempt = 'passed' | 'failed' | 'open';

/**
 * How often this process lets an address, and a key id, fail to authenticate. It counts in this process only: behind a load balancer the sum is
 * that of all replicas. What waits for its answer counts as failed until it has one, so that a burst spends no more than the budget; those
 * beyond it wait for the first answers and do not fail for what others may turn out to be.
 */
export class FailureBudget {
  readonly #addresses: Spending;
  readonly #keys: Spending;

  constructor({ clock, perAddressMax, perKeyMax, entriesMax = ENTRIES_MAX }: FailureBudgetOptions) {
    this.#addresses = new Spending({ clock, max: perAddressMax, entriesMax });
    this.#keys = new Spending({ clock, max: perKeyMax, entriesMax });
  }

  /**
   * Begins an attempt to authenticate.
   * @param key that a token of our form says it is; only then is anything asked of the database.
   * @param gone fires when the caller leaves: it waits no longer then. Asked for by who has to wait.
   * @returns what is to be told how it went.
   * @throws ServiceError auth.too_many_failures | request.aborted
   */
  async begin(address: string, key: string | undefined, gone?: Gone): Promise<(attempt: Attempt) => void> {
    const ofAddress = await this.#addresses.begin(addressGroup(address), gone);
    if (key === undefined) return ofAddress;
    try {
      const ofKey = await this.#keys.begin(key, gone);
      return (attempt) => {
        ofAddress(attempt);
        ofKey(attempt);
      };
    } catch (error) {
      // What is refused for its key id is a failure of its address too; who left before that has not failed.
      ofAddress(error instanceof ServiceError && error.code === 'request.aborted' ? 'open' : 'failed');
      throw error;
    }
  }
}

/** Whether the caller left; made when it is first asked for. */
export type Gone = () => AbortSignal;

interface Entry {
  /** As of `at`; it falls with time. */
  failures: number;
  at: number;
  pending: number;
  waiting: Set<() => void>;
}

class Spending {
  readonly #options: { clock: Clock; max: number };
  readonly #entries: LRUCache<string, Entry>;

  constructor({ entriesMax, ...options }: { clock: Clock; max: number; entriesMax: number }) {
    this.#options = options;
    this.#entries = new LRUCache({ max: entriesMax });
  }

  async begin(name: string, gone?: Gone): Promise<(attempt: Attempt) => void> {
    const { max } = this.#options;
    const entry = this.#entry(name);
    while (this.#fall(entry) + entry.pending > max - 1) {
      if (entry.failures > max - 1) throw this.#refusal(entry);
      await wokenOf(entry, gone?.());
    }
    entry.pending += 1;
    return (attempt) => {
      entry.pending -= 1;
      if (attempt === 'failed') entry.failures = this.#fall(entry) + 1;
      this.#wake(entry);
    };
  }

  #entry(name: string): Entry {
    const known = this.#entries.get(name);
    if (known !== undefined) return known;
    const entry = { failures: 0, at: this.#options.clock.now(), pending: 0, waiting: new Set<() => void>() };
    this.#entries.set(name, entry);
    return entry;
  }

  /** Brings the count to now. */
  #fall(entry: Entry): number {
    const now = this.#options.clock.now();
    const passed = Math.max(0, now - entry.at);
    entry.failures = Math.max(0, entry.failures - (passed * this.#options.max) / WINDOW_MS);
    entry.at = now;
    return entry.failures;
  }

  /** As many as there is room for; all, when there is nothing left to wait for. */
  #wake(entry: Entry): void {
    const room = Math.floor(this.#options.max - this.#fall(entry)) - entry.pending;
    const woken = entry.pending === 0 ? entry.waiting.size : Math.max(0, room);
    for (const wake of [...entry.waiting].slice(0, woken)) wake();
  }

  #refusal({ failures }: Entry): ServiceError {
    const { max } = this.#options;
    return new ServiceError(
      'auth.too_many_failures',
      'Too many attempts to authenticate failed. Stop sending this token, and try again later.',
      { retryAfterSeconds: Math.max(1, Math.ceil(((failures - (max - 1)) * WINDOW_MS) / max / 1_000)) },
    );
  }
}

/** Until there may be room. @throws ServiceError request.aborted when `gone` fires; its place in the line is given up. */
function wokenOf({ waiting }: Entry, gone?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      waiting.delete(wake);
      reject(new ServiceError('request.aborted', 'The caller left before it was said who it is.'));
    };
    const wake = (): void => {
      gone?.removeEventListener('abort', leave);
      waiting.delete(wake);
      resolve();
    };
    waiting.add(wake);
    if (gone?.aborted === true) leave();
    else gone?.addEventListener('abort', leave, { once: true });
  });
}

/**
 * One client: an IPv4 address, or the /64 of an IPv6 address, of which a single client has all. A port, as some load balancers write it into
 * X-Forwarded-For, is another one for each connection and no part of it.
 */
export function addressGroup(address: string): string {
  const plain = withoutPort(address).replace(/%.*$/, '').toLowerCase();
  const mapped = /^(?:0*:)*:?(?:0*:)*ffff:(\d{1,3}(?:\.\d{1,3}){3})$/.exec(plain)?.[1];
  if (mapped !== undefined) return mapped;
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  const groups = [...left, ...Array<string>(zeros).fill('0'), ...right];
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}::/64`;
}

function withoutPort(address: string): string {
  return /^\[([^\]]*)\](?::\d+)?$/.exec(address)?.[1] ?? address.replace(/^([\d.]+):\d+$/, '$1');
}
