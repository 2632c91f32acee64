import { ServiceError } from '../domain/errors.ts';
import type { CallId, MerchantId } from '../domain/ids.ts';
import type { CallOutcome } from '../domain/usage.ts';
import type { CallIntent, LimitUse } from './call-intent.ts';
import type { LedgerStore } from './ledger-store.ts';
import { refusalOf } from './refusals.ts';
import { isAway } from './spool.ts';
import type { Spool } from './spool.ts';
import type { Unsent } from './unsent.ts';

export interface LedgerOptions {
  /** Waits between attempts to write a settlement while Postgres is away. Milliseconds. */
  settleRetryDelaysMs: readonly number[];
  /** A settlement could not be written: the row stays held and becomes unknown at its deadline. */
  onUnsettled: (callId: CallId, error: unknown) => void;
  /** Where settlements wait while Postgres is away; without it they are tried again for as long as the delays say. */
  spool?: Pick<Spool, 'append' | 'full'>;
  /** Told of calls whose admission was not answered; without it those that were admitted all the same become unknown at their deadline. */
  unsent?: Pick<Unsent, 'remember'>;
}

/**
 * The two phases of every paid call: a row committed before it, resolved exactly once after it.
 * The row is written by the statement that checks that merchant, API key and credential version are live and holds the most the call can
 * cost in every limit, so nothing that was revoked before can start a call, and no limit can be passed (prisma/migrations, ledger_hold).
 */
export class Ledger {
  readonly #store: LedgerStore;
  readonly #options: LedgerOptions;

  constructor(store: LedgerStore, options: LedgerOptions) {
    this.#store = store;
    this.#options = options;
  }

  /**
   * Records the intent of a call and holds what it can cost. Only after this returns may a byte go to AWS.
   * @throws ServiceError auth.invalid_token | auth.source_not_allowed | credential.not_usable | merchant.not_active | region.not_allowed |
   *   limit.* | idempotency.key_reused | ledger.unavailable | service.overloaded; StaleMerchant when the request was checked with an older
   *   merchant; MadeBefore when a call has this Idempotency-Key already.
   */
  async open(merchantId: MerchantId, intent: CallIntent): Promise<OpenCall> {
    if (this.#options.spool?.full === true) {
      throw new ServiceError(
        'service.overloaded',
        'This replica cannot keep the settlements of more calls: its spool is full or its disk fails. Nothing was called.',
        { retryAfterSeconds: 5 },
      );
    }
    const answer = await this.#store.hold(merchantId, intent).catch((error: unknown) => {
      if (isAway(error)) this.#options.unsent?.remember({ merchantId, requestId: intent.requestId });
      throw error;
    });
    if (answer.verdict !== 'admitted') throw refusalOf(answer);
    return new OpenCall(answer, (outcome) => this.#resolve(merchantId, answer.id, outcome));
  }

  /**
   * Resolves a call that was unknown; false when somebody else did first.
   * @throws ServiceError ledger.unavailable
   */
  resolveUnknown(merchantId: MerchantId, id: CallId, outcome: CallOutcome): Promise<boolean> {
    return this.#store.settle(merchantId, id, outcome);
  }

  async #resolve(merchantId: MerchantId, id: CallId, outcome: CallOutcome): Promise<void> {
    for (const delayMs of [...this.#options.settleRetryDelaysMs, undefined]) {
      try {
        await this.#store.settle(merchantId, id, outcome);
        return;
      } catch (error) {
        // A lost answer may hide a commit: repeating is safe because a row is resolved once.
        if (isAway(error) && (await this.#options.spool?.append({ merchantId, id, outcome })) === true)
          return;
        if (delayMs === undefined) {
          this.#options.onUnsettled(id, error);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, delayMs));
      }
    }
  }
}

/**
 * One call that has begun. Leaving its scope without `resolve` records it as unknown: no exit path can forget a row.
 */
export class OpenCall implements AsyncDisposable {
  readonly id: CallId;
  /** The output the body must be told, where the plan or a limit allows less than it asks, or it says nothing. */
  readonly maxTokens: number | undefined;
  /** The merchant's hard limits after this call was held. */
  readonly limits: readonly LimitUse[];
  readonly #write: (outcome: CallOutcome) => Promise<void>;
  #resolution: Promise<void> | undefined;

  constructor(
    held: { id: CallId; maxTokens: number | null; limits: readonly LimitUse[] },
    write: (outcome: CallOutcome) => Promise<void>,
  ) {
    this.id = held.id;
    this.maxTokens = held.maxTokens ?? undefined;
    this.limits = held.limits;
    this.#write = write;
  }

  /** Writes the outcome. The first one counts; later ones are ignored. Never throws. */
  resolve(outcome: CallOutcome): Promise<void> {
    this.#resolution ??= this.#write(outcome);
    return this.#resolution;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.resolve({ state: 'unknown', reason: 'left without an outcome', upstream: {} });
  }
}
