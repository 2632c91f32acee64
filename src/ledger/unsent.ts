import type { Clock } from '../domain/clock.ts';
import type { MerchantId } from '../domain/ids.ts';
import { isAway } from './spool.ts';

/** A call whose admission was not answered. Its caller was told so, and nothing was sent for it. */
export interface UnsentCall {
  merchantId: MerchantId;
  requestId: string;
}

export interface UnsentOptions {
  /** Makes those of this process that were admitted all the same void. @returns how many. @throws ServiceError ledger.unavailable */
  voidUnsent: (calls: readonly UnsentCall[]) => Promise<number>;
  /** After this Postgres has ended the statement whose answer was lost, or commits it right now. Milliseconds. */
  afterMs: number;
  /** Spans only (monotonicClock). */
  clock: Clock;
  /** Some are given up: they become unknown at their deadline. Told once until all is well again. */
  onGivenUp: (error?: unknown) => void;
  /** Default 10_000. */
  max?: number;
}

interface Lost extends UnsentCall {
  /** Milliseconds of the clock. */
  dueAt: number;
}

const MAX = 10_000;
const BATCH_MAX = 256;

/**
 * Calls that were answered with 503 because the answer of their admission was lost. It may hide a commit: then a row is held, with its cost and
 * its Idempotency-Key, for a call that never was. They are asked for when that statement cannot commit any more, again and again until
 * Postgres answers. A process that dies first leaves them to become unknown.
 * While Postgres is away every call is one of these: the first ones are kept, because what came later did not reach it.
 */
export class Unsent implements AsyncDisposable {
  readonly #options: UnsentOptions;
  /** The oldest first. */
  #lost: Lost[] = [];
  #toldOf = false;
  #ticking: Promise<number> | undefined;

  constructor(options: UnsentOptions) {
    this.#options = options;
  }

  remember({ merchantId, requestId }: UnsentCall): void {
    const { clock, afterMs, max = MAX } = this.#options;
    if (this.#lost.length < max) this.#lost.push({ merchantId, requestId, dueAt: clock.now() + afterMs });
    else this.#tell();
  }

  /** Asks for those that are due; to be called every second. While Postgres is away they stay. Never throws. @returns how many were void. */
  tick(): Promise<number> {
    this.#ticking ??= this.#settle(this.#options.clock.now()).finally(() => (this.#ticking = undefined));
    return this.#ticking;
  }

  /** One last try, also of those that are not due yet. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ticking;
    await this.#settle(Infinity);
  }

  async #settle(now: number): Promise<number> {
    let moved = 0;
    for (;;) {
      const batch = this.#lost.slice(0, BATCH_MAX).filter(({ dueAt }) => dueAt <= now);
      if (batch.length === 0) break;
      try {
        moved += await this.#options.voidUnsent(batch);
      } catch (error) {
        if (isAway(error)) return moved;
        // Not kept: the others would wait behind them for ever.
        this.#tell(error);
      }
      this.#lost = this.#lost.slice(batch.length);
    }
    this.#toldOf &&= this.#lost.length > 0;
    return moved;
  }

  #tell(error?: unknown): void {
    if (!this.#toldOf) this.#options.onGivenUp(error);
    this.#toldOf = true;
  }
}
