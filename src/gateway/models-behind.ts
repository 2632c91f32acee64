import type { AuditStore } from '../audit/audit-store.ts';
import type { ModelRef } from '../bedrock/model-id.ts';
import type { ModelDescription, ModelQuestion } from '../bedrock/models.ts';
import { askingAws } from '../domain/audit.ts';
import type { Actor } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { ReachedModel } from '../domain/model.ts';
import { profileOf } from '../ledger/price-book.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';

export interface ModelsBehindParts {
  models: { getModel(question: ModelQuestion): Promise<ModelDescription | undefined> };
  audit: Pick<AuditStore, 'append'>;
  clock: Clock;
}

/** Who asks, and for whom. */
interface Asking {
  actor: Actor;
  merchant: { id: MerchantId };
}

/** ARNs that hide which model answers. What another ARN or an id runs is written in it, or AWS has no question for it. */
const HIDES_ITS_MODEL = new Set(['application-inference-profile', 'provisioned-model']);
const REMEMBERED_MAX = 10_000;
/** A profile never changes its model; provisioned throughput does, within the model's family. Milliseconds. */
const REMEMBERED_MS = 300_000;

/**
 * The foundation model behind what a request names: by it calls are priced, bounded, counted and allowed. Asked of AWS, once for a while,
 * with the merchant's own credential.
 */
export class ModelsBehind implements Disposable {
  readonly #parts: Pick<ModelsBehindParts, 'models' | 'audit'>;
  readonly #remembered: SingleFlightCache<ReachedModel | undefined>;

  constructor({ clock, ...parts }: ModelsBehindParts) {
    this.#parts = parts;
    this.#remembered = new SingleFlightCache({ max: REMEMBERED_MAX, ttlMs: REMEMBERED_MS, clock });
  }

  /**
   * Never throws for what AWS would not say: the model is then what the request names, unpriced, and on no list of allowed models.
   * @param mayAsk throws when the right to ask has ended, which is the only error: nothing is sent then.
   * @param model of the account that `resolved` signs for (assertModelInScope), so no merchant learns of another's.
   */
  async reached(
    asking: Asking,
    model: ModelRef,
    resolved: ResolvedCredential,
    mayAsk: () => Promise<void>,
  ): Promise<ReachedModel> {
    const named = profileOf(model.id);
    if (model.kind !== 'arn' || !HIDES_ITS_MODEL.has(model.resource ?? '')) return named;
    const key = `${asking.merchant.id} ${model.id}`;
    // Not inside of load: what one caller may not do any more, another who waits for the same answer still may.
    if (!this.#remembered.has(key)) await mayAsk();
    const found = await this.#remembered.get(key, () => this.#ask(asking, model, resolved)).catch(withheld);
    return found ?? named;
  }

  [Symbol.dispose](): void {
    this.#remembered[Symbol.dispose]();
  }

  async #ask(
    { actor, merchant }: Asking,
    { id }: ModelRef,
    resolved: ResolvedCredential,
  ): Promise<ReachedModel | undefined> {
    const { models, audit } = this.#parts;
    await audit.append(merchant.id, askingAws(actor, 'model', resolved));
    // Many callers may wait for one answer, so none of them can call it off; the control plane's own time limit ends it.
    const signal = new AbortController().signal;
    return (await models.getModel({ resolved, modelId: id, signal }))?.runs;
  }
}

/** AWS refused, could not say, or was not asked because that could not be recorded: the call itself will tell the caller what is wrong with credential or ARN. */
function withheld(error: unknown): undefined {
  if (!(error instanceof ServiceError)) throw error;
}
