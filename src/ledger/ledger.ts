import { ServiceError } from '../domain/errors.ts';
import type { CallId, MerchantId } from '../domain/ids.ts';
import type { CallOutcome } from '../domain/usage.ts';
import type { CallIntent, Verdict } from './call-intent.ts';
import type { LedgerStore } from './ledger-store.ts';

export interface LedgerOptions {
  /** Waits between attempts to write a settlement while Postgres is away. Milliseconds. */
  settleRetryDelaysMs: readonly number[];
  /** A settlement could not be written: the row stays held and becomes unknown at its deadline. */
  onUnsettled: (callId: CallId, error: unknown) => void;
}

/**
 * The two phases of every paid call: a row committed before it, resolved exactly once after it.
 * The row is written by the statement that checks that merchant, API key and credential version are live, so nothing that was revoked before
 * can start a call (prisma/migrations, ledger_open).
 */
export class Ledger {
  readonly #store: LedgerStore;
  readonly #options: LedgerOptions;

  constructor(store: LedgerStore, options: LedgerOptions) {
    this.#store = store;
    this.#options = options;
  }

  /**
   * Records the intent of a call. Only after this returns may a byte go to AWS.
   * @throws ServiceError auth.invalid_token | credential.not_usable | merchant.not_active | auth.source_not_allowed | ledger.unavailable
   */
  async open(merchantId: MerchantId, intent: CallIntent): Promise<OpenCall> {
    const { verdict, id } = await this.#store.open(merchantId, intent);
    if (verdict !== 'admitted' || id === undefined) throw refusal(verdict);
    return new OpenCall(id, (outcome) => this.#resolve(merchantId, id, outcome));
  }

  async #resolve(merchantId: MerchantId, id: CallId, outcome: CallOutcome): Promise<void> {
    for (const delayMs of [...this.#options.settleRetryDelaysMs, undefined]) {
      try {
        await this.#store.resolve(merchantId, id, outcome);
        return;
      } catch (error) {
        // A lost answer may hide a commit: repeating is safe because a row is resolved once.
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
  readonly #write: (outcome: CallOutcome) => Promise<void>;
  #resolution: Promise<void> | undefined;

  constructor(id: CallId, write: (outcome: CallOutcome) => Promise<void>) {
    this.id = id;
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

function refusal(verdict: Verdict): ServiceError {
  switch (verdict) {
    case 'api_key':
      return new ServiceError(
        'auth.invalid_token',
        'This API key was revoked or has expired. Use another one.',
      );
    case 'credential':
      return new ServiceError(
        'credential.not_usable',
        'This credential was deleted or replaced a moment ago. Name one that is active.',
      );
    case 'source':
      return new ServiceError(
        'auth.source_not_allowed',
        'This merchant may not use this credential source. An operator can allow it.',
      );
    case 'merchant':
    case 'admitted':
      return new ServiceError(
        'merchant.not_active',
        'This merchant is suspended or closed. An operator can say why.',
      );
  }
}
