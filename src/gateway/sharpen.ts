import type { AuditStore } from '../audit/audit-store.ts';
import { countOfAnswer, countQuestion } from '../bedrock/count-question.ts';
import { UNBOUNDED_INPUT } from '../bedrock/model-request.ts';
import type { RuntimeCall, RuntimeReply } from '../bedrock/runtime.ts';
import { askingAws } from '../domain/audit.ts';
import type { ResolvedCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CallBound, LimitRefusal } from '../ledger/call-intent.ts';
import { PerMerchant } from '../memory/per-merchant.ts';
import type { BoundedRequest } from './call-bound.ts';
import type { PaidCall } from './paid-call.ts';
import { readWhole } from './read-whole.ts';

/** A call that was refused, and why. */
interface Refused {
  paid: PaidCall;
  resolved: ResolvedCredential;
  bounded: BoundedRequest;
  refusal: LimitRefusal;
}

/** Gives a smaller bound to try again with, or undefined: the refusal stands. Asks AWS once, however often it is called. */
export type Sharpen = (refused: Refused) => Promise<CallBound | undefined>;

/** A refusal that takes longer is no better for it. Milliseconds, the reading of the answer included. */
const TIMEOUT_MS = 2_000;
/** Bounds the quota of AWS that one merchant near its limit takes away from itself and, with service defaults, from others. */
const IN_FLIGHT_MAX = 4;
/** A million tokens of text are about that long. A question is a second copy of the body, beside what the body budget counts. Bytes. */
const COUNTED_BODY_BYTES_MAX = 4_000_000;
const ANSWER_BYTES_MAX = 64_000;
/** A token of text is rarely more than eight bytes: a bound by bytes is rarely more than eight times the count. */
const BYTES_PER_TOKEN_MOST = 8;
/**
 * On top of the count. AWS: 'The token count returned by this operation will match the token count that would be charged'; Anthropic of the
 * same count: 'an estimate', which 'may differ by a small amount'. A call that reports more than was held stops its merchant, so a few more
 * tokens are held than AWS says. Tokens.
 */
const MARGIN_TOKENS = 32;

/** The way to AWS of every paid call. */
interface Runtime {
  send(call: RuntimeCall): Promise<RuntimeReply>;
}

/**
 * Near a limit the bound by bytes, which may be several times the count, refuses what would fit. AWS counts for nothing, but within a quota
 * and at the cost of a round trip: so it is asked only when a limit on tokens or money refused, and only when the call could fit at all.
 */
export class Sharpening {
  readonly #runtime: Runtime;
  readonly #audit: Pick<AuditStore, 'append'>;
  readonly #counts = new PerMerchant({ max: IN_FLIGHT_MAX });

  constructor(runtime: Runtime, audit: Pick<AuditStore, 'append'>) {
    this.#runtime = runtime;
    this.#audit = audit;
  }

  /** For one request and all of its attempts to be admitted. What it returns never throws for what AWS would not say. */
  ofOneRequest(): Sharpen {
    let counted: Promise<number | undefined> | undefined;
    return async (refused) => {
      counted ??= this.#ask(refused);
      const tokens = await counted;
      const { bounded } = refused;
      if (tokens === undefined || tokens + MARGIN_TOKENS >= bounded.bound.inputTokens) return undefined;
      return bounded.boundWith(tokens + MARGIN_TOKENS);
    };
  }

  /** Undefined when there was nothing to ask: a later attempt may ask then. */
  #ask(refused: Refused): Promise<number | undefined> | undefined {
    const leave = couldFit(refused) ? this.#counts.enter(refused.paid.merchant.id) : undefined;
    if (leave === undefined) return undefined;
    const question = questionOf(refused);
    if (question !== undefined) return this.#count(refused, question).catch(withheld).finally(leave);
    leave();
    return undefined;
  }

  async #count({ paid, resolved, bounded }: Refused, body: Uint8Array): Promise<number | undefined> {
    // The prompt leaves the building, and may never have a row of its own.
    await this.#audit.append(paid.merchant.id, askingAws(paid.actor, 'tokens', resolved));
    const reply = await this.#runtime.send({
      merchantId: paid.merchant.id,
      resolved,
      operation: 'count-tokens',
      modelId: bounded.baseModelId,
      body,
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), paid.callerGone]),
    });
    try {
      if (reply.status !== 200) return undefined;
      return countOfAnswer(await readWhole(reply, { bytesMax: ANSWER_BYTES_MAX, idleTimeoutMs: TIMEOUT_MS }));
    } finally {
      reply.release();
    }
  }
}

/** Whether the numbers of the refusal leave room for what a bound by bytes may be at best. */
function couldFit({ paid, bounded, refusal }: Refused): boolean {
  const { bound, request } = bounded;
  // What AWS fetches, or runs within the call, is in no count.
  if (request.bound.inputTokens === UNBOUNDED_INPUT || paid.body.byteLength > COUNTED_BODY_BYTES_MAX)
    return false;
  const input = inputIn(refusal, bound);
  if (input === undefined) return false;
  const left = refusal.max - refusal.used;
  const output = bound.clampable ? 0 : refusal.wanted - input;
  if (left <= output) return false;
  // Images are bounded by the most that a model makes of one, which may be any number of times what it makes of this one.
  return left - output >= input / BYTES_PER_TOKEN_MOST || Buffer.from(paid.body).includes('"image"');
}

/** The part of the bound that a count can make smaller, in the unit of the limit: tokens or nano-USD. Undefined for limits on calls. */
function inputIn({ name }: LimitRefusal, { inputTokens, price }: CallBound): number | undefined {
  if (name.startsWith('tokens')) return inputTokens;
  return name.startsWith('nanoUsd') && price !== undefined ? Number(price.inputNanoUsd) : undefined;
}

function questionOf({ paid, bounded }: Refused): Buffer | undefined {
  return countQuestion(paid.operation, bounded.baseModelId, bounded.request.encode({}));
}

/** AWS refused, was slow or could not be reached, or was not asked because that could not be recorded; or the caller left. */
function withheld(error: unknown): undefined {
  if (!(error instanceof ServiceError)) throw error;
}
