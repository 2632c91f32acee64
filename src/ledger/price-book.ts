import { PROFILE_PREFIX } from '../domain/model.ts';
import type { ReachedModel } from '../domain/model.ts';
import type { TokenCounts } from '../domain/usage.ts';
import { ANY_REGION } from './price.ts';
import type { Price, PriceKind, PriceQuery } from './price.ts';

const MILLION = 1_000_000n;

/** Prices by model, region, profile and tier. Built once, read for every call. */
export class PriceBook<P extends Price = Price> {
  /** The prices of one key, the latest first. */
  readonly #prices = new Map<string, P[]>();

  /** @param prices with no two of the same key, as parsePriceFile and the database guarantee. */
  constructor(prices: readonly P[]) {
    for (const price of [...prices].sort((a, b) => b.validFromMs - a.validFromMs)) {
      const key = keyOf(price, price.region);
      const listed = this.#prices.get(key);
      if (listed === undefined) this.#prices.set(key, [price]);
      else listed.push(price);
    }
  }

  /**
   * The price in force at a moment: of the region itself, else of every region. Neither tier nor profile ever falls back to another:
   * a call without a price is unpriced, never priced wrongly.
   */
  find(query: PriceQuery, atMs: number): P | undefined {
    return this.#latest(keyOf(query, query.region), atMs) ?? this.#latest(keyOf(query, ANY_REGION), atMs);
  }

  #latest(key: string, atMs: number): P | undefined {
    return this.#prices.get(key)?.find((price) => price.validFromMs <= atMs);
  }
}

function keyOf({ modelId, profile, tier }: PriceQuery, region: string): string {
  return `${modelId} ${region} ${profile} ${tier}`;
}

/** Kinds that a token of the input may be charged as. */
const INPUT_KINDS = [
  'input',
  'embedding',
  'cacheRead',
  'cacheWrite5m',
  'cacheWrite1h',
] as const satisfies readonly PriceKind[];

export interface CostBound {
  /** Nano-USD, rounded up: what all of the input, the images and the request cost at most. */
  inputNanoUsd: bigint;
  outputNanoUsdPerMillion: bigint;
  /** Nano-USD: the input and all of the output, each rounded up. */
  totalNanoUsd: bigint;
}

/**
 * The most that a call can cost, before it is made: each input token at the highest price that an input token may have. A kind without a
 * price adds nothing here; a call that uses it is unpriced afterwards.
 * @param at the most that the call can use, in whole numbers.
 * @throws RangeError when a number is not whole.
 */
export function costBoundNanoUsd(
  price: Price,
  at: { inputTokens: number; outputTokens: number; images: number },
): CostBound {
  const { image = 0n, request = 0n, output = 0n } = price.nanoUsdPerMillion;
  let highest = 0n;
  for (const kind of INPUT_KINDS) {
    const each = price.nanoUsdPerMillion[kind] ?? 0n;
    if (each > highest) highest = each;
  }
  const inputNanoUsd = perMillion(BigInt(at.inputTokens) * highest + BigInt(at.images) * image + request);
  return {
    inputNanoUsd,
    outputNanoUsdPerMillion: output,
    totalNanoUsd: inputNanoUsd + perMillion(BigInt(at.outputTokens) * output),
  };
}

/**
 * What a call cost, in nano-USD: summed exactly, then rounded up once. The database has the same formula. Undefined (unpriced) when the
 * call used a kind that has no price.
 * @param usage `images` are those that the model charges for one by one; images that are charged as tokens are not counted here.
 * @throws RangeError when a count is not whole.
 */
export function costNanoUsd(price: Price, usage: TokenCounts & { images: number }): bigint | undefined {
  const { input, embedding, request = 0n, ...kinds } = price.nanoUsdPerMillion;
  const parts: [count: number, each: bigint | undefined][] = [
    [usage.input, input ?? embedding],
    [usage.output, kinds.output],
    [usage.cacheRead, kinds.cacheRead],
    [usage.cacheWrite5m, kinds.cacheWrite5m],
    [usage.cacheWrite1h, kinds.cacheWrite1h],
    [usage.images, kinds.image],
  ];
  let sum = request;
  for (const [count, each] of parts) {
    if (count === 0) continue;
    if (each === undefined) return undefined;
    sum += BigInt(count) * each;
  }
  return perMillion(sum);
}

/** Rounded up: never less than what it costs. */
function perMillion(nanoUsdTimesMillion: bigint): bigint {
  return (nanoUsdTimesMillion + MILLION - 1n) / MILLION;
}

/** The ARNs that name a foundation model or a system-defined inference profile. What another ARN runs is not written in it. */
const NAMES_A_MODEL = /^arn:[a-z-]+:bedrock:[a-z0-9-]+:(?:\d{12})?:(?:foundation-model|inference-profile)\//;

/**
 * The foundation model behind a model id or ARN, and how it is reached. Any other ARN comes back as it is, and in no price book.
 */
export function profileOf(modelId: string): ReachedModel {
  const name = modelId.replace(NAMES_A_MODEL, '');
  const prefix = PROFILE_PREFIX.exec(name);
  if (prefix === null) return { modelId: name, profile: 'in-region' };
  return {
    modelId: name.slice(prefix[0].length),
    profile: prefix[1] === 'global' ? 'global' : 'geographic',
  };
}
