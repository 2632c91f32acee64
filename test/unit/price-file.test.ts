import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { PriceBook } from '../../src/ledger/price-book.ts';
import { diffPrices } from '../../src/ledger/price-diff.ts';
import { parsePriceFile, writePriceFile } from '../../src/ledger/price-file.ts';
import { formatDollars, parseDollars, PRICE_KINDS, PROFILES, TIERS } from '../../src/ledger/price.ts';
import type { Price, PriceKind } from '../../src/ledger/price.ts';

const COLUMNS = [
  'modelId',
  'region',
  'profile',
  'tier',
  'validFrom',
  ...PRICE_KINDS,
  'contextTokens',
  'maxOutputTokens',
  'source',
  'sourceDate',
];
const GOOD: Record<string, string> = {
  modelId: 'amazon.nova-micro-v1:0',
  region: '*',
  profile: 'in-region',
  tier: 'standard',
  validFrom: '2026-01-31T00:00:00Z',
  input: '0.035',
  source: 'a page',
  sourceDate: '2026-01-31',
};

function line(columns: Record<string, string> = {}): string {
  return COLUMNS.map((column) => ({ ...GOOD, ...columns })[column] ?? '').join(',');
}
const file = (...lines: string[]) => [COLUMNS.join(','), ...lines, ''].join('\n');
const price = (columns: Record<string, string> = {}): Price => {
  const { prices, problems } = parsePriceFile(file(line(columns)));
  expect(problems).toEqual([]);
  if (prices[0] === undefined) throw new Error('no price');
  return prices[0];
};

const MIN = Date.parse('2020-01-01T00:00:00Z');
const nano = fc.oneof(fc.bigInt({ min: 0n, max: 10n ** 18n - 1n }), fc.bigInt({ min: 0n, max: 10n ** 10n }));
const anyPrice: fc.Arbitrary<Price> = fc
  .record(
    {
      modelId: fc.constantFrom('amazon.nova-micro-v1:0', 'anthropic.claude-opus-4-8', 'moonshotai.kimi-k2.5'),
      region: fc.constantFrom('*', 'us-east-1', 'eu-west-1'),
      profile: fc.constantFrom(...PROFILES),
      tier: fc.constantFrom(...TIERS),
      validFromMs: fc.integer({ min: MIN, max: MIN + 10 ** 12 }),
      nanoUsdPerMillion: fc.record(
        Object.fromEntries(
          PRICE_KINDS.filter((kind) => kind !== 'embedding').map((kind) => [kind, nano]),
        ) as Record<PriceKind, typeof nano>,
        { requiredKeys: [] },
      ),
      contextTokens: fc.integer({ min: 1, max: 999_999_999 }),
      maxOutputTokens: fc.integer({ min: 1, max: 999_999_999 }),
      source: fc
        .oneof(
          fc.string({ minLength: 1, unit: fc.constantFrom('"', ',', ' ', 'a', "'", ';', '=') }),
          fc.string({ minLength: 1 }),
        )
        .map((text) => `s${text}s`),
      sourceDate: fc.constantFrom('2026-01-31', '2024-02-29'),
    },
    {
      requiredKeys: [
        'modelId',
        'region',
        'profile',
        'tier',
        'validFromMs',
        'nanoUsdPerMillion',
        'source',
        'sourceDate',
      ],
    },
  )
  .filter((one) => Object.keys(one.nanoUsdPerMillion).length > 0);
const anyPrices = fc.uniqueArray(anyPrice, {
  maxLength: 20,
  selector: (one) => [one.modelId, one.region, one.profile, one.tier, one.validFromMs].join(),
});

describe('dollars', () => {
  test.each<[string, bigint]>([
    ['0', 0n],
    ['0.00', 0n],
    ['3', 3_000_000_000n],
    ['3.00', 3_000_000_000n],
    ['0.0375', 37_500_000n],
    ['0.00875', 8_750_000n],
    // What floating point makes of these is 0.30000000000000004 and 8.750000000000002.
    ['0.3', 300_000_000n],
    ['0.000000001', 1n],
    ['123456789.987654321', 123_456_789_987_654_321n],
    ['999999999.999999999', 999_999_999_999_999_999n],
  ])('%s', (text, nanoUsd) => {
    expect(parseDollars(text)).toBe(nanoUsd);
  });

  test('every amount is written exactly, and with two decimals at least', () => {
    expect(formatDollars(0n)).toBe('0.00');
    expect(formatDollars(3_000_000_000n)).toBe('3.00');
    expect(formatDollars(37_500_000n)).toBe('0.0375');
    expect(formatDollars(100_000_000_000n)).toBe('100.00');
    fc.assert(
      fc.property(nano, (amount) => {
        const text = formatDollars(amount);
        expect(text).toMatch(/^\d+\.\d{2,9}$/);
        expect(parseDollars(text)).toBe(amount);
      }),
    );
  });
});

describe('reading and writing', () => {
  test('what was written is read again, and written alike in any order', () => {
    fc.assert(
      fc.property(anyPrices, fc.boolean(), (prices, windows) => {
        const text = writePriceFile(prices);
        const read = parsePriceFile(windows ? `\uFEFF${text.replaceAll('\n', '\r\n')}` : text);
        expect(read.problems).toEqual([]);
        expect(read.prices).toHaveLength(prices.length);
        expect(read.prices).toEqual(expect.arrayContaining(prices));
        expect(writePriceFile(read.prices)).toBe(text);
        expect(writePriceFile([...prices].reverse())).toBe(text);
      }),
    );
  });

  test('columns in another order, quotes, empty lines and a last line without an end', () => {
    const columns = [...COLUMNS].reverse();
    const fields: Record<string, string> = { ...GOOD, source: '"a, ""quoted""\npage"' };
    const text = [columns.join(','), '', columns.map((column) => fields[column] ?? '').join(',')].join('\n');
    // The line break is in the quotes where RFC 4180 has it, and is refused as a source.
    expect(parsePriceFile(text).problems).toEqual([
      'line 3, column source: "a, \\"quoted\\"\\npage" must name the source in 1 to 500 characters',
    ]);
    expect(parsePriceFile(text.replace('\npage', ' page')).prices).toEqual([
      { ...price(), source: 'a, "quoted" page' },
    ]);
  });

  test('what is empty is absent', () => {
    expect(price()).toEqual({
      modelId: 'amazon.nova-micro-v1:0',
      region: '*',
      profile: 'in-region',
      tier: 'standard',
      validFromMs: Date.parse('2026-01-31T00:00:00Z'),
      nanoUsdPerMillion: { input: 35_000_000n },
      source: 'a page',
      sourceDate: '2026-01-31',
    });
    expect(Object.keys(price())).not.toContain('contextTokens');
    expect(price({ contextTokens: '128000', maxOutputTokens: '10000' })).toMatchObject({
      contextTokens: 128_000,
      maxOutputTokens: 10_000,
    });
  });
});

describe('problems', () => {
  test.each([
    ['modelId', '', 'is no id of a foundation model'],
    ['modelId', 'Nova', 'is no id of a foundation model'],
    ['modelId', 'arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0', 'is no id of a'],
    ['modelId', 'us.amazon.nova-micro-v1:0', 'is an inference profile'],
    ['modelId', 'global.amazon.nova-micro-v1:0', 'is an inference profile'],
    ['region', '', 'is neither a region of Bedrock nor *'],
    ['region', 'us-esat-1', 'is neither a region of Bedrock nor *'],
    ['profile', 'regional', 'is none of in-region, geographic, global, provisioned'],
    ['tier', 'Standard', 'is none of standard, priority, flex, latency-optimized'],
    ['validFrom', '2026-01-31', 'is no UTC date-time'],
    ['validFrom', '2026-01-31T00:00:00+01:00', 'is no UTC date-time'],
    ['validFrom', '2026-02-30T00:00:00Z', 'is no UTC date-time'],
    ['validFrom', '2026-01-31T24:00:00Z', 'is no UTC date-time'],
    ['validFrom', '2026-01-31T23:60:00Z', 'is no UTC date-time'],
    ['input', '-1', 'is no price'],
    ['input', '1e3', 'is no price'],
    ['input', '.5', 'is no price'],
    ['input', '5.', 'is no price'],
    ['input', '03.00', 'is no price'],
    ['input', '$3.00', 'is no price'],
    ['input', ' 3.00', 'is no price'],
    ['output', '0.0000000001', 'is no price'],
    ['cacheRead', '1000000000', 'is no price'],
    ['cacheWrite5m', 'free', 'is no price'],
    ['cacheWrite1h', 'NaN', 'is no price'],
    ['image', '0x10', 'is no price'],
    ['request', '1_000', 'is no price'],
    ['contextTokens', '0', 'is no whole number above 0'],
    ['contextTokens', '200k', 'is no whole number above 0'],
    ['maxOutputTokens', '4096.5', 'is no whole number above 0'],
    ['source', '', 'must name the source'],
    ['source', ' ', 'must name the source'],
    ['sourceDate', '', 'is no date'],
    ['sourceDate', '31.1.2026', 'is no date'],
    ['sourceDate', '2025-02-29', 'is no date'],
  ])('%s %j', (column, text, problem) => {
    const { prices, problems } = parsePriceFile(
      file(line({ source: 'fine' }), line({ region: 'us-east-1', [column]: text })),
    );
    expect(problems).toEqual([
      expect.stringContaining(`line 3, column ${column}: ${JSON.stringify(text)} ${problem}`),
    ]);
    expect(prices).toHaveLength(1);
  });

  test('all of a file, each with its line', () => {
    const { problems } = parsePriceFile(
      file(
        line({ input: 'x', output: 'y', region: 'here' }),
        line({ input: '' }),
        'a,b',
        line({ input: '"1' }),
        line({ region: 'us-east-1' }),
        line({ region: 'us-east-1', validFrom: '2026-01-31T00:00:00.000Z', tier: 'standard', output: 'z' }),
        line({ region: 'us-east-2', input: '1', embedding: '1' }),
      ),
    );
    expect(problems).toEqual([
      'line 2, column region: "here" is neither a region of Bedrock nor *',
      expect.stringContaining('line 2, column input: "x" is no price'),
      expect.stringContaining('line 2, column output: "y" is no price'),
      expect.stringContaining('line 3, columns input, output, cacheRead'),
      'line 4, all columns: has 2 fields, and line 1 names 17 columns',
      'line 5, all columns: a quote is misplaced, or never closed',
      expect.stringContaining('line 7, column output: "z" is no price'),
      'line 7, columns modelId, region, profile, tier, validFrom: the same as in line 6',
      expect.stringContaining('line 8, columns input, embedding'),
    ]);
  });

  test('duplicates are told from rows that differ in any part of the key', () => {
    const rows = [
      {},
      { modelId: 'amazon.nova-lite-v1:0' },
      { region: 'us-east-1' },
      { profile: 'global' },
      { tier: 'flex' },
      { validFrom: '2026-01-31T00:00:00.001Z' },
    ];
    expect(parsePriceFile(file(...rows.map(line))).problems).toEqual([]);
    for (const row of rows)
      expect(parsePriceFile(file(line(row), line({ ...row, input: '9' }))).problems).toEqual([
        'line 3, columns modelId, region, profile, tier, validFrom: the same as in line 2',
      ]);
  });

  test('line breaks in quotes count as lines', () => {
    const { problems } = parsePriceFile(file(line({ source: '"a\nb"' }), line({ input: 'x' })));
    expect(problems.map((problem) => problem.split(',')[0])).toEqual(['line 2', 'line 4', 'line 4']);
  });

  test.each([
    ['', ['line 1: must name the columns']],
    ['\n\n', ['line 1: must name the columns']],
    [
      COLUMNS.join(',').replace('cacheRead', 'cacheread'),
      ['column "cacheread": is none', 'column cacheRead: is missing'],
    ],
    [`${COLUMNS.join(',')},input`, ['column input: is named twice']],
    [COLUMNS.slice(1).join(','), ['column modelId: is missing']],
    ['"modelId', ['a quote is misplaced']],
  ])('header %j', (text, expected) => {
    const { prices, problems } = parsePriceFile(text);
    expect(prices).toEqual([]);
    expect(problems).toEqual(expected.map((problem) => expect.stringContaining(problem)));
  });

  test('a long value is cut short', () => {
    const [problem = ''] = parsePriceFile(file(line({ region: 'x'.repeat(10_000) }))).problems;
    expect(problem.length).toBeLessThan(200);
  });
});

describe('difference', () => {
  const old = price({ input: '3.00', output: '15' });

  test('nothing', () => {
    expect(diffPrices([old], [price({ input: '3', output: '15.00' })])).toMatchObject({
      added: [],
      changed: [],
      removed: [],
    });
  });

  test('a row that says something else: which columns, from what to what, by how much', () => {
    const now = price({
      input: '3.30',
      output: '',
      request: '1',
      contextTokens: '9',
      sourceDate: '2026-02-01',
    });
    const { added, changed, removed } = diffPrices([old], [now]);
    expect([added, removed]).toEqual([[], []]);
    expect(changed).toEqual([
      {
        price: now,
        changes: [
          { column: 'input', from: '3.00', to: '3.30', percent: 10 },
          { column: 'output', from: '15.00', to: '' },
          { column: 'request', from: '', to: '1.00' },
          { column: 'contextTokens', from: '', to: '9' },
          { column: 'sourceDate', from: '2026-01-31', to: '2026-02-01' },
        ],
      },
    ]);
  });

  test.each([
    ['3', '6', 100],
    ['3', '0', -100],
    ['3', '2', -33.3],
    ['3', '5', 66.7],
    ['3', '3.001', 0],
    ['3', '3.0015', 0.1],
    ['3', '2.9985', -0.1],
    ['0', '1', undefined],
  ])('%s to %s is %p percent', (from, to, percent) => {
    const { changed } = diffPrices([price({ input: from })], [price({ input: to })]);
    expect(changed[0]?.changes[0]?.percent).toBe(percent);
  });

  test('a new row is compared with the one it takes over from', () => {
    const later = price({ input: '30', output: '15', validFrom: '2026-02-01T00:00:00Z' });
    const between = price({ input: '3', output: '14', validFrom: '2026-01-31T00:00:00.500Z' });
    const elsewhere = price({ region: 'us-east-1', input: '1' });
    const { added, changed, removed } = diffPrices([old], [later, elsewhere, between, old]);
    expect([changed, removed]).toEqual([[], []]);
    expect(added).toEqual([
      { price: between, changes: [{ column: 'output', from: '15.00', to: '14.00', percent: -6.7 }] },
      {
        price: later,
        changes: [
          { column: 'input', from: '3.00', to: '30.00', percent: 900 },
          { column: 'output', from: '14.00', to: '15.00', percent: 7.1 },
        ],
      },
      { price: elsewhere, changes: expect.arrayContaining([{ column: 'input', from: '', to: '1.00' }]) },
    ]);
  });

  test('removed rows', () => {
    expect(diffPrices([old], [])).toMatchObject({ added: [], changed: [], removed: [old] });
  });

  test('the digest is the same for the same difference, and for no other', () => {
    const lite = price({ modelId: 'amazon.nova-lite-v1:0' });
    const { digest } = diffPrices([old], [old, lite]);
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
    expect(diffPrices([], []).digest).toBe(diffPrices([old], [old]).digest);
    // Pinned: an approval that was given to one version of this program holds for the next.
    expect(digest).toBe('f10aa4c0997f8d16f487c375d82b66433a27c9dc7a35f3dfe08c8ebda894f37d');
    expect(diffPrices([old], [lite, old]).digest).toBe(digest);
    const shuffled = Object.fromEntries(Object.entries(lite).reverse()) as unknown as Price;
    expect(diffPrices([old], [shuffled, old]).digest).toBe(digest);

    const others = [
      diffPrices([], []),
      diffPrices([old, lite], [old]),
      diffPrices([], [old, lite]),
      diffPrices([old], [old, price({ modelId: 'amazon.nova-lite-v1:0', input: '0.036' })]),
      diffPrices([old], [old, price({ modelId: 'amazon.nova-lite-v1:0', sourceDate: '2026-02-01' })]),
      diffPrices([price({ input: '2' })], [old]),
      diffPrices([price({ input: '1' })], [old]),
    ].map((diff) => diff.digest);
    expect(new Set([digest, ...others]).size).toBe(1 + others.length);
  });

  test('applied, it makes the new book', () => {
    fc.assert(
      fc.property(anyPrices, anyPrices, (current, next) => {
        const { added, changed, removed } = diffPrices(current, next);
        const key = (one: Price) => [one.modelId, one.region, one.profile, one.tier, one.validFromMs].join();
        const book = new Map(current.map((one) => [key(one), one]));
        for (const one of removed) expect(book.delete(key(one))).toBe(true);
        for (const step of changed) expect(book.has(key(step.price))).toBe(true);
        for (const step of added) expect(book.has(key(step.price))).toBe(false);
        for (const step of [...added, ...changed]) book.set(key(step.price), step.price);
        expect(writePriceFile([...book.values()])).toBe(writePriceFile(next));
      }),
    );
  });
});

describe('prisma/prices.csv', () => {
  const text = readFileSync(new URL('../../prisma/prices.csv', import.meta.url), 'utf8');
  const { prices, problems } = parsePriceFile(text);

  test('has no problem, is written as this program writes it, and says where each row is from', () => {
    expect(problems).toEqual([]);
    expect(prices.length).toBeGreaterThan(400);
    expect(writePriceFile(prices)).toBe(text);
    for (const one of prices) {
      expect(one.source).toMatch(/ at [0-9a-f]{40}\b|^https:\/\//);
      expect(one.sourceDate).toMatch(/^20\d\d-\d\d-\d\d$/);
    }
  });

  test('has no price that is off by a factor of a thousand', () => {
    for (const { modelId, nanoUsdPerMillion } of prices) {
      const { image, request, ...tokens } = nanoUsdPerMillion;
      for (const each of Object.values(tokens)) {
        expect([modelId, each >= parse('0.005') && each <= parse('100')]).toEqual([modelId, true]);
      }
      for (const each of [image ?? parse('60'), request ?? parse('60')])
        expect([modelId, each >= parse('50') && each <= parse('100000')]).toEqual([modelId, true]);
    }
  });

  test('cached tokens are cheaper to read than input, and dearer to write', () => {
    for (const { modelId, nanoUsdPerMillion: each } of prices) {
      const { input = 0n, cacheRead = 0n, cacheWrite5m = input, cacheWrite1h = cacheWrite5m } = each;
      expect([modelId, cacheRead <= input && input <= cacheWrite5m && cacheWrite5m <= cacheWrite1h]).toEqual([
        modelId,
        true,
      ]);
    }
  });

  test.each([
    ['anthropic.claude-sonnet-4-20250514-v1:0', 'eu-west-1', 'geographic', '3.00 15.00'],
    ['anthropic.claude-sonnet-4-5-20250929-v1:0', 'us-east-1', 'global', '3.00 15.00'],
    ['anthropic.claude-sonnet-4-5-20250929-v1:0', 'us-east-1', 'geographic', '3.30 16.50'],
    ['amazon.nova-micro-v1:0', 'us-east-1', 'in-region', '0.035 0.14'],
    ['amazon.nova-pro-v1:0', 'eu-central-1', 'geographic', '1.05 4.20'],
    ['openai.gpt-oss-120b-1:0', 'eu-west-2', 'in-region', '0.23 0.93'],
  ] as const)('%s in %s, %s: %s', (modelId, region, profile, dollars) => {
    const [input, output] = dollars.split(' ').map(parse);
    const at = Date.parse('2026-11-01T00:00:00Z');
    const found = new PriceBook(prices).find({ modelId, region, profile, tier: 'standard' }, at);
    expect(found?.nanoUsdPerMillion).toMatchObject({ input, output });
  });

  function parse(dollars: string): bigint {
    return parseDollars(dollars) ?? -1n;
  }
});
