import type { Clock } from '../domain/clock.ts';
import { ServiceError } from '../domain/errors.ts';
import { within } from '../memory/within.ts';
import type { EndedBy, Held } from '../ledger/rights-store.ts';

export interface WatchParts {
  /** RightsStore. */
  rights: { ended: (rights: readonly Held[]) => Promise<ReadonlyMap<number, EndedBy>> };
  clock: Clock;
  /** A look failed; it is repeated until one succeeds. Told once for each outage. */
  onBlind: (error: unknown) => void;
  /**
   * After this the next look begins beside the one that has not answered: it may reach a Postgres that this one does not. A late answer counts
   * all the same, so that a Postgres that is slow with every look ends calls. Milliseconds; default 2_000.
   */
  lookTimeoutMs?: number;
  /** Between a look that failed and the next. Milliseconds; default 500. */
  retryMs?: number;
}

/** A running call, or an answer that is long in coming. */
export interface Watched {
  right: Held;
  /** When the caller's token runs out, where the database does not know (JWTs). Milliseconds since 1970. */
  expiresAtMs?: number | undefined;
  /** Ends the call. Not called twice. */
  cut: (why: ServiceError) => void;
}

type Why = EndedBy | 'token';

const SENTENCES: Record<Why, string> = {
  merchant: 'This merchant was suspended or closed while the call ran.',
  api_key: 'The API key of this call was revoked or has expired while it ran.',
  token: 'The token of this call has expired while it ran.',
  source: 'This merchant may not use this credential source any more: that changed while the call ran.',
  credential: 'The credential of this call was frozen or deleted while it ran.',
  operator_key: 'The operator key of this call was revoked or has expired while it ran.',
};

/** Looks without an answer at one time: each may hold a connection. */
const UNANSWERED_MAX = 3;

/**
 * Ends running calls whose right has ended: whoever took it away may be on any replica, and told the database. One statement for all calls of
 * this process, which Service asks for every few seconds. While Postgres does not answer, calls run on, and it is asked again
 * and again: a process that alone is cut off from it may run calls past their right.
 */
export class Watch implements Disposable {
  readonly #parts: WatchParts;
  /** Calls by their right: a thousand streams with one key ask one question. */
  readonly #running = new Map<string, Set<Watched>>();
  #round: Promise<number> | undefined;
  #unanswered = 0;
  /** Calls that were cut and of which no round has told yet. */
  #cuts = 0;
  #blind = false;
  #closed = false;

  constructor(parts: WatchParts) {
    this.#parts = parts;
  }

  /** Watches a call until what is returned is disposed of. */
  begin(call: Watched): Disposable {
    const key = keyOf(call.right);
    const group = this.#running.get(key) ?? new Set();
    this.#running.set(key, group.add(call));
    return {
      [Symbol.dispose]: () => {
        this.#forget(key, call);
      },
    };
  }

  /** Looks once, and again until one of its looks was answered; one round at a time. Never throws. @returns how many calls were cut since the last. */
  round(): Promise<number> {
    this.#round ??= this.#untilSeen().finally(() => (this.#round = undefined));
    return this.#round;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
  }

  async #untilSeen(): Promise<number> {
    const { retryMs = 500, lookTimeoutMs: limitMs = 2_000, onBlind } = this.#parts;
    // Not those of the rounds before, which may be older than what was taken away since.
    const looks = new Set<Promise<void>>();
    this.#cutExpired();
    while (this.#running.size > 0 && !this.#closed) {
      if (this.#unanswered < UNANSWERED_MAX) {
        const look = this.#look();
        looks.add(look);
        look.catch(() => looks.delete(look));
      }
      try {
        await within(limitMs, Promise.any(looks), () => new Error(`no answer within ${String(limitMs)} ms`));
        this.#blind = false;
        break;
      } catch (error) {
        if (!this.#blind) onBlind(error instanceof AggregateError ? (error.errors[0] ?? error) : error);
        this.#blind = true;
        await pause(retryMs);
        this.#cutExpired();
      }
    }
    const cuts = this.#cuts;
    this.#cuts = 0;
    return cuts;
  }

  /** Every running call, however young: asking only after those of the round before would double the time a revoked one may run. */
  async #look(): Promise<void> {
    const groups = [...this.#running.values()].map((group) => [...group]);
    const rights = groups.flatMap(([first]) => (first === undefined ? [] : [first.right]));
    this.#unanswered += 1;
    try {
      const ended = await this.#parts.rights.ended(rights);
      for (const [at, why] of ended) for (const call of groups[at] ?? []) this.#cut(call, why);
    } finally {
      this.#unanswered -= 1;
    }
  }

  #cutExpired(): void {
    const now = this.#parts.clock.now();
    for (const group of [...this.#running.values()])
      for (const call of [...group]) if ((call.expiresAtMs ?? Infinity) <= now) this.#cut(call, 'token');
  }

  #cut(call: Watched, why: Why): void {
    if (!this.#forget(keyOf(call.right), call)) return;
    this.#cuts += 1;
    call.cut(revoked(why));
  }

  #forget(key: string, call: Watched): boolean {
    const group = this.#running.get(key);
    const was = group?.delete(call) === true;
    if (group?.size === 0) this.#running.delete(key);
    return was;
  }
}

function revoked(why: Why): ServiceError {
  return new ServiceError('call.revoked', `${SENTENCES[why]} It was ended, and no other can start with it.`, {
    extra: { ended: why },
  });
}

function keyOf(right: Held): string {
  if ('operatorKeyId' in right) return `~operator/${right.operatorKeyId}`;
  return [right.merchantId, right.source, right.apiKeyId, right.credentialId].join('/');
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
