import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { costBoundNanoUsd, costNanoUsd, PriceBook, profileOf } from '../../src/ledger/price-book.ts';
import { PRICE_KINDS, PROFILES, TIERS } from '../../src/ledger/price.ts';
import type { Price, PriceKind } from '../../src/ledger/price.ts';

const QUERY = {
  modelId: 'amazon.nova-micro-v1:0',
  region: 'eu-west-1',
  profile: 'in-region',
  tier: 'standard',
} as const;
const NO_USAGE = { input: 0, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0, images: 0 };

function price(nanoUsdPerMillion: Partial<Record<PriceKind, bigint>>, more: Partial<Price> = {}): Price {
  return { ...QUERY, validFromMs: 0, nanoUsdPerMillion, source: 'a page', sourceDate: '2026-01-31', ...more };
}

describe('finding a price', () => {
  const one = (input: bigint, more: Partial<Price> = {}) => price({ input }, more);

  test('takes the region before every region, and the latest that is in force', () => {
    const book = new PriceBook([
      one(3n, { region: '*', validFromMs: 300 }),
      one(1n, { region: '*', validFromMs: 100 }),
      one(20n, { validFromMs: 200 }),
      one(40n, { validFromMs: 400 }),
    ]);
    const inputAt = (atMs: number, region = 'eu-west-1') =>
      book.find({ ...QUERY, region }, atMs)?.nanoUsdPerMillion.input;
    expect(inputAt(99)).toBeUndefined();
    expect(inputAt(100)).toBe(1n);
    expect(inputAt(199)).toBe(1n);
    expect(inputAt(200)).toBe(20n);
    // The region's own price is older than the one of every region, and still the region's.
    expect(inputAt(399)).toBe(20n);
    expect(inputAt(400)).toBe(40n);
    expect(inputAt(299, 'eu-west-2')).toBe(1n);
    expect(inputAt(300, 'eu-west-2')).toBe(3n);
  });

  test('never takes the price of another model, profile or tier', () => {
    for (const profile of PROFILES) {
      for (const tier of TIERS) {
        const book = new PriceBook([one(1n, { region: '*', profile, tier })]);
        for (const asked of PROFILES) {
          for (const askedTier of TIERS) {
            const found = book.find({ ...QUERY, profile: asked, tier: askedTier }, 1);
            expect(found !== undefined).toBe(asked === profile && askedTier === tier);
          }
        }
        expect(book.find({ ...QUERY, profile, tier, modelId: 'amazon.nova-micro-v1' }, 1)).toBeUndefined();
      }
    }
  });

  test('does not sort the list it was given', () => {
    const prices = Object.freeze([one(1n, { validFromMs: 1 }), one(2n, { validFromMs: 2 })]);
    expect(new PriceBook(prices).find(QUERY, 2)?.nanoUsdPerMillion.input).toBe(2n);
  });
});

describe('cost', () => {
  const claude = price({
    input: 3_000_000_000n,
    output: 15_000_000_000n,
    cacheRead: 300_000_000n,
    cacheWrite5m: 3_750_000_000n,
    cacheWrite1h: 6_000_000_000n,
  });

  test('adds up every kind', () => {
    const usage = {
      input: 1_000,
      output: 2_000,
      cacheRead: 3_000,
      cacheWrite5m: 4_000,
      cacheWrite1h: 5_000,
      images: 0,
    };
    // $0.003 + $0.03 + $0.0009 + $0.015 + $0.03
    expect(costNanoUsd(claude, usage)).toBe(78_900_000n);
  });

  test.each<[string, Partial<Record<PriceKind, bigint>>, Partial<typeof NO_USAGE>, bigint | undefined]>([
    ['nothing used costs nothing', { input: 1n }, {}, 0n],
    ['a part of a nano-dollar is a whole one', { input: 1n }, { input: 1 }, 1n],
    ['rounded once, not for each kind', { input: 400_000n, output: 600_000n }, { input: 1, output: 1 }, 1n],
    ['exactly one', { input: 1_000_000n }, { input: 1 }, 1n],
    ['an embedding model', { embedding: 20_000_000n }, { input: 500 }, 10_000n],
    ['images, one by one', { image: 40_000_000_000_000n }, { images: 2 }, 80_000_000n],
    ['the request itself', { request: 2_000_000_000_000n }, {}, 2_000_000n],
    ['free is not unpriced', { input: 1n, cacheWrite5m: 0n }, { cacheWrite5m: 9 }, 0n],
    ['no price for input', { output: 1n }, { input: 1 }, undefined],
    ['no price for output', { input: 1n }, { output: 1 }, undefined],
    ['no price for cache reads', { input: 1n }, { cacheRead: 1 }, undefined],
    ['no price for 5 minutes', { input: 1n, cacheWrite1h: 1n }, { cacheWrite5m: 1 }, undefined],
    ['no price for an hour', { input: 1n, cacheWrite5m: 1n }, { cacheWrite1h: 1 }, undefined],
    ['no price for images', { input: 1n }, { images: 1 }, undefined],
    [
      'beyond what a number can hold',
      { input: 999_999_999_999_999_999n },
      { input: 2 ** 53 - 1 },
      9_007_199_254_740_990_990_992_800_746n,
    ],
  ])('%s', (_name, prices, usage, cost) => {
    expect(costNanoUsd(price(prices), { ...NO_USAGE, ...usage })).toBe(cost);
  });

  test('the bound takes the highest price an input token may have', () => {
    expect(costBoundNanoUsd(claude, { inputTokens: 1_000, outputTokens: 10, images: 0 })).toEqual({
      inputNanoUsd: 6_000_000n,
      outputNanoUsdPerMillion: 15_000_000_000n,
      totalNanoUsd: 6_150_000n,
    });
    const other = price({ embedding: 5n, cacheRead: 7n, image: 1_000_001n, request: 1n });
    expect(costBoundNanoUsd(other, { inputTokens: 1, outputTokens: 1, images: 1 })).toEqual({
      inputNanoUsd: 2n,
      outputNanoUsdPerMillion: 0n,
      totalNanoUsd: 2n,
    });
  });

  test('the bound of a rerank model is the price of the request', () => {
    const bound = costBoundNanoUsd(price({ request: 2_000_000_000_000n }), {
      inputTokens: 5_000,
      outputTokens: 5_000,
      images: 5,
    });
    expect(bound).toEqual({
      inputNanoUsd: 2_000_000n,
      outputNanoUsdPerMillion: 0n,
      totalNanoUsd: 2_000_000n,
    });
  });

  test('no usage within the bound costs more than the bound', () => {
    const nano = fc.bigInt({ min: 0n, max: 10n ** 13n });
    const prices = fc.record(
      Object.fromEntries(PRICE_KINDS.map((kind) => [kind, nano])) as Record<PriceKind, typeof nano>,
      { requiredKeys: [] },
    );
    const count = fc.oneof(fc.nat(50), fc.nat(2_000_000));
    const counts = fc.record({
      input: count,
      output: count,
      cacheRead: count,
      cacheWrite5m: count,
      cacheWrite1h: count,
      images: fc.nat(20),
    });
    const spare = fc.record({ input: fc.nat(3), output: fc.nat(3), images: fc.nat(3) });
    let priced = 0;
    fc.assert(
      fc.property(prices, counts, spare, (kinds, usage, more) => {
        const { input, cacheRead, cacheWrite5m, cacheWrite1h } = usage;
        const bound = costBoundNanoUsd(price(kinds), {
          inputTokens: input + cacheRead + cacheWrite5m + cacheWrite1h + more.input,
          outputTokens: usage.output + more.output,
          images: usage.images + more.images,
        });
        // Without the kinds that have no price: with them the call is unpriced.
        const used = Object.fromEntries(
          Object.entries(usage).map(([kind, number]) => [
            kind,
            isPriced(kinds, kind as keyof typeof usage) ? number : 0,
          ]),
        ) as typeof usage;
        const cost = costNanoUsd(price(kinds), used);
        expect(cost).toBeDefined();
        priced += Number(cost);
        expect((cost ?? 0n) <= bound.totalNanoUsd).toBe(true);
      }),
      { numRuns: 500 },
    );
    expect(priced).toBeGreaterThan(0);
  });

  function isPriced(kinds: Partial<Record<PriceKind, bigint>>, kind: keyof typeof NO_USAGE): boolean {
    if (kind === 'images') return kinds.image !== undefined;
    return kinds[kind] !== undefined || (kind === 'input' && kinds.embedding !== undefined);
  }
});

describe('the model behind an id', () => {
  const SONNET = 'anthropic.claude-sonnet-4-20250514-v1:0';
  test.each([
    [SONNET, SONNET, 'in-region'],
    [`us.${SONNET}`, SONNET, 'geographic'],
    [`us-gov.${SONNET}`, SONNET, 'geographic'],
    [`eu.${SONNET}`, SONNET, 'geographic'],
    [`apac.${SONNET}`, SONNET, 'geographic'],
    [`jp.${SONNET}`, SONNET, 'geographic'],
    [`au.${SONNET}`, SONNET, 'geographic'],
    [`ca.${SONNET}`, SONNET, 'geographic'],
    [`global.${SONNET}`, SONNET, 'global'],
    [`ap.${SONNET}`, SONNET, 'geographic'],
    [`sa.${SONNET}`, SONNET, 'geographic'],
    [`me.${SONNET}`, SONNET, 'geographic'],
    ['moonshotai.kimi-k2.5', 'moonshotai.kimi-k2.5', 'in-region'],
    ['ai21.jamba-1-5-mini-v1:0', 'ai21.jamba-1-5-mini-v1:0', 'in-region'],
    ['useful.model', 'useful.model', 'in-region'],
    [`arn:aws:bedrock:us-east-1::foundation-model/${SONNET}`, SONNET, 'in-region'],
    [`arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.${SONNET}`, SONNET, 'geographic'],
    [`arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.${SONNET}`, SONNET, 'global'],
    [
      'arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghij12',
      'arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghij12',
      'in-region',
    ],
    [
      'arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdefghij12',
      'arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdefghij12',
      'in-region',
    ],
  ])('%s', (id, modelId, profile) => {
    expect(profileOf(id)).toEqual({ modelId, profile });
  });
});
