import type { Clock } from '../domain/clock.ts';
import { ServiceError } from '../domain/errors.ts';
import { within } from '../memory/within.ts';
import type { EndedBy, Right, RightsStore } from '../ledger/rights-store.ts';

export interface WatchParts {
  rights: Pick<RightsStore, 'ended'>;
  clock: Clock;
  /** A look failed; it is repeated until one succeeds. Told once for each outage. */
  onBlind: (error: unknown) => void;
  /** After this a look counts as failed: the next one may reach a Postgres that this one does not. Milliseconds; default 2_000. */
  lookTimeoutMs?: number;
  /** Between a look that failed and the next. Milliseconds; default 500. */
  retryMs?: number;
}

/** A running call. */
export interface Watched {
  right: Right;
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
};

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

  /** Looks once, and again until that succeeded; one round at a time. Never throws. @returns how many calls it cut. */
  round(): Promise<number> {
    this.#round ??= this.#untilSeen().finally(() => (this.#round = undefined));
    return this.#round;
  }

  [Symbol.dispose](): void {
    this.#closed = true;
  }

  async #untilSeen(): Promise<number> {
    const { retryMs = 500, onBlind } = this.#parts;
    let cut = this.#cutExpired();
    while (this.#running.size > 0 && !this.#closed) {
      try {
        cut += await this.#look();
        this.#blind = false;
        break;
      } catch (error) {
        if (!this.#blind) onBlind(error);
        this.#blind = true;
        await pause(retryMs);
        cut += this.#cutExpired();
      }
    }
    return cut;
  }

  /** Every running call, however young: asking only after those of the round before would double the time a revoked one may run. */
  async #look(): Promise<number> {
    const groups = [...this.#running.values()].map((group) => [...group]);
    const rights = groups.flatMap(([first]) => (first === undefined ? [] : [first.right]));
    const { lookTimeoutMs: limitMs = 2_000 } = this.#parts;
    const ended = await within(
      limitMs,
      this.#parts.rights.ended(rights),
      () => new Error(`no answer within ${String(limitMs)} ms`),
    );
    let cut = 0;
    for (const [at, why] of ended) for (const call of groups[at] ?? []) cut += this.#cut(call, why);
    return cut;
  }

  #cutExpired(): number {
    const now = this.#parts.clock.now();
    const expired = [...this.#running.values()]
      .flatMap((group) => [...group])
      .filter(({ expiresAtMs = Infinity }) => expiresAtMs <= now);
    return expired.reduce((cut, call) => cut + this.#cut(call, 'token'), 0);
  }

  #cut(call: Watched, why: Why): 0 | 1 {
    if (!this.#forget(keyOf(call.right), call)) return 0;
    call.cut(revoked(why));
    return 1;
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

function keyOf({ merchantId, source, apiKeyId, credentialId }: Right): string {
  return [merchantId, source, apiKeyId, credentialId].join('/');
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
