import { ModelRequest } from '../bedrock/model-request.ts';
import type { ReachedModel } from '../domain/model.ts';
import type { CallBound } from '../ledger/call-intent.ts';
import { costBoundNanoUsd } from '../ledger/price-book.ts';
import type { StoredPrice, Tier } from '../ledger/price.ts';
import type { PaidCall } from './paid-call.ts';

/** What the gateway asks of the price book. */
export interface PriceLookup {
  find(query: ReachedModel & { region: string; tier: Tier }): StoredPrice | undefined;
}

/** Where the book does not know a model's context: no model on Bedrock takes more. Tokens. */
const CONTEXT_TOKENS_MAX = 10_000_000;
/** Told to a body that says nothing, where a limit needs an end and the book does not know the model's: every text model allows it. Tokens. */
const OUTPUT_TOKENS_TOLD = 4_096;
/** Held for a body that cannot be told: no model on Bedrock writes more in one answer. Tokens. */
const OUTPUT_TOKENS_MAX = 128_000;

/** The body of a call, read once, and the most that the call can use and cost. */
export interface BoundedRequest {
  request: ModelRequest;
  baseModelId: string;
  bound: CallBound;
  /** The same with fewer tokens of input, at the same price: where more is known of them than their bytes. */
  boundWith(inputTokens: number): CallBound;
}

/** @throws ServiceError request.malformed_json | request.too_complex */
export function boundOf(
  paid: PaidCall,
  reached: ReachedModel,
  region: string,
  prices: PriceLookup,
): BoundedRequest {
  const baseModelId = reached.modelId;
  const request = ModelRequest.read(paid.operation, baseModelId, paid.body);
  const tier = tierOf(paid, request);
  const price = prices.find({ ...reached, region, tier });
  const { images, outputTokens } = request.bound;
  const inputTokens = Math.min(request.bound.inputTokens, price?.contextTokens ?? CONTEXT_TOKENS_MAX);
  const most = request.canClamp ? OUTPUT_TOKENS_TOLD : OUTPUT_TOKENS_MAX;
  const boundWith = (tokens: number): CallBound => ({
    inputTokens: tokens,
    outputTokens,
    images,
    outputTokensMost: outputTokens ?? price?.maxOutputTokens ?? most,
    clampable: request.canClamp,
    tier,
    ...(price !== undefined && {
      price: { id: price.id, ...costBoundNanoUsd(price, { inputTokens: tokens, images, outputTokens: 0 }) },
    }),
  });
  return { request, baseModelId, bound: boundWith(inputTokens), boundWith };
}

/** What the call asks of the service, in the words of the price book. `reserved` and what AWS adds later are priced as standard. */
function tierOf({ headers }: PaidCall, { serviceTier, latency }: ModelRequest): Tier {
  const asked = serviceTier ?? headers['x-amzn-bedrock-service-tier'];
  if (asked === 'priority' || asked === 'flex') return asked;
  const optimized = latency ?? headers['x-amzn-bedrock-performanceconfig-latency'];
  return optimized === 'optimized' ? 'latency-optimized' : 'standard';
}
