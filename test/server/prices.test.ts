import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import pg from 'pg';
import type { CallId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { TokenCounts } from '../../src/domain/usage.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { PriceAdminStore } from '../../src/ledger/price-admin-store.ts';
import type { RerateOrder, Rerated } from '../../src/ledger/price-admin-store.ts';
import { costBoundNanoUsd, costNanoUsd, PriceBook, profileOf } from '../../src/ledger/price-book.ts';
import { diffPrices } from '../../src/ledger/price-diff.ts';
import { parsePriceFile, writePriceFile } from '../../src/ledger/price-file.ts';
import { PriceStore } from '../../src/ledger/price-store.ts';
import { PRICE_KINDS, PROFILES } from '../../src/ledger/price.ts';
import type { Price, PriceKind, StoredPrice } from '../../src/ledger/price.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { until } from '../support/until.ts';

const ACTOR = { subject: 'cli:jo', requestId: 'cli' };
const MODEL = 'maker.model-v1:0';
const HOUR = 3_600_000;
/** Months are there for a year from now on, so calls of these tests begin tomorrow. */
const START = Math.ceil(Date.now() / HOUR) * HOUR + 24 * HOUR;
/** To look for a smaller counterexample takes longer than a test may, and its failure would be the time and not what is wrong. */
const AT_FIRST_FAILURE = { endOnFailure: true } as const;
const NO_USAGE = { input: 0, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0, images: 0 };

let database: TestDatabase & AsyncDisposable;
let admin: pg.Client;
let owner: Database;
let login: Database;
let prices: PriceStore;
let administrator: PriceAdminStore;
let ledger: LedgerStore;
let merchants = 0;

function connect(url: string): Database {
  return new Database({
    url: new Secret(url),
    connectionsMax: 5,
    statementTimeoutMs: 10_000,
    onPoolError: () => undefined,
  });
}

beforeAll(async () => {
  database = await newTestDatabase();
  admin = new pg.Client({ connectionString: database.adminUrl });
  await admin.connect();
  owner = connect(database.adminUrl);
  login = connect(database.url);
  prices = new PriceStore(login);
  administrator = new PriceAdminStore(owner);
  ledger = new LedgerStore(login, { processId: randomUUID() });
});
afterAll(async () => {
  await owner[Symbol.asyncDispose]();
  await login[Symbol.asyncDispose]();
  await admin.end();
  await database[Symbol.asyncDispose]();
});
beforeEach(() => importBook([]));

async function rowsOf<T extends object = Record<string, unknown>>(
  sql: string,
  values: unknown[] = [],
): Promise<T[]> {
  return (await admin.query<T>(sql, values)).rows;
}

function price(kinds: Partial<Record<PriceKind, bigint>>, more: Partial<Price> = {}): Price {
  return {
    modelId: MODEL,
    region: '*',
    profile: 'in-region',
    tier: 'standard',
    validFromMs: START,
    nanoUsdPerMillion: kinds,
    source: 'a page',
    sourceDate: '2026-01-31',
    ...more,
  };
}

async function importBook(book: readonly Price[]) {
  const version = await administrator.bookVersion();
  const { digest } = diffPrices(await prices.all(), book);
  return administrator.import(ACTOR, book, { version, digest });
}

/** A price as it was given, without its row's id. */
const withoutId = ({ id: _id, ...rest }: StoredPrice): Price => rest;

const nano = fc.oneof(fc.bigInt({ min: 0n, max: 10n ** 18n - 1n }), fc.bigInt({ min: 0n, max: 10n ** 7n }));
const eachKind = (each: fc.Arbitrary<bigint>) =>
  Object.fromEntries(PRICE_KINDS.map((kind) => [kind, each])) as Record<PriceKind, typeof each>;
const kindsOf = (each: fc.Arbitrary<bigint>) => fc.record(eachKind(each), { requiredKeys: [] });
const allKinds = (each: fc.Arbitrary<bigint>) => fc.record(eachKind(each));
const priceOf = (modelIds: readonly string[], kinds: fc.Arbitrary<Price['nanoUsdPerMillion']>) =>
  fc
    .record({
      key: fc.record({
        modelId: fc.constantFrom(...modelIds),
        region: fc.constantFrom('*', 'us-east-1', 'eu-west-1'),
        profile: fc.constantFrom(...PROFILES),
        tier: fc.constantFrom('standard' as const, 'priority' as const),
        validFromMs: fc.integer({ min: 0, max: 4 }).map((hour) => START + hour * HOUR),
      }),
      kinds,
      source: fc.constantFrom('a page', 'another "page", and more'),
      limits: fc.constantFrom({}, { contextTokens: 1_000 }, { contextTokens: 1_000, maxOutputTokens: 10 }),
    })
    .map(({ key, kinds, source, limits }) => price(kinds, { ...key, ...limits, source }));
const selector = (one: Price) => [one.modelId, one.region, one.profile, one.tier, one.validFromMs].join(' ');
const roundNano = fc.constantFrom(0n, 1n, 3_000_000n, 15_000_000_000n, 999_999_999_999n);
/** Of few models, moments and sources, so that two books have much in common. */
const anyBook = fc.uniqueArray(priceOf([MODEL, 'maker.other'], kindsOf(roundNano)), {
  selector,
  maxLength: 25,
});
/** A book in which most calls find a price, most of them for all that they used. */
const fullBook = fc.uniqueArray(
  priceOf([MODEL], fc.oneof({ arbitrary: allKinds(roundNano), weight: 5 }, kindsOf(roundNano))),
  { selector, minLength: 30, maxLength: 60 },
);

describe('the book', () => {
  test('is what was imported last, whatever was there before, and the database counts as the diff does', async () => {
    await fc.assert(
      fc.asyncProperty(anyBook, anyBook, async (first, second) => {
        await importBook(first);
        const before = await rowsOf('SELECT * FROM prices ORDER BY id');
        const seen = await prices.all();
        expect(writePriceFile(seen)).toBe(writePriceFile(first));
        const diff = diffPrices(seen, second);
        expect(await importBook(second)).toEqual({
          added: diff.added.length,
          changed: diff.changed.length,
          removed: diff.removed.length,
        });
        const now = await prices.all();
        expect(writePriceFile(now)).toBe(writePriceFile(second));
        // No row was edited: all that were there are there still, and the new ones follow.
        const after = await rowsOf('SELECT * FROM prices ORDER BY id');
        expect(after.slice(0, before.length)).toEqual(before);
        expect(after).toHaveLength(
          before.length + diff.added.length + diff.changed.length + diff.removed.length,
        );
        // A second time there is nothing to do.
        expect(await importBook(second)).toEqual({ added: 0, changed: 0, removed: 0 });
      }),
      { numRuns: 25, ...AT_FIRST_FAILURE },
    );
  });

  test('gives the price in force: SQL as in TypeScript, of random books', async () => {
    const query = fc.record({
      modelId: fc.constantFrom(MODEL, 'maker.other', 'maker.none'),
      region: fc.constantFrom('us-east-1', 'eu-west-1', 'eu-west-3'),
      profile: fc.constantFrom(...PROFILES),
      tier: fc.constantFrom('standard' as const, 'priority' as const, 'flex' as const),
      atMs: fc.integer({ min: START - 1, max: START + 5 * HOUR }),
    });
    let found = 0;
    await fc.assert(
      fc.asyncProperty(
        anyBook,
        // Dense ones, so that a region has a price of its own and a later one is for every region.
        fc.oneof(anyBook, fullBook),
        fc.array(query, { minLength: 40, maxLength: 40 }),
        async (first, second, queries) => {
          await importBook(first);
          await importBook(second);
          const book = new PriceBook(await prices.all());
          const expected = queries.map(({ atMs, ...asked }) => book.find(asked, atMs)?.id.toString() ?? null);
          found += expected.filter((id) => id !== null).length;
          const rows = await rowsOf<{ id: string | null }>(
            `SELECT (SELECT id FROM price_in_force(q->>'modelId', q->>'region', q->>'profile', q->>'tier', to_timestamp((q->>'atMs')::numeric / 1000)))
             FROM jsonb_array_elements($1) WITH ORDINALITY AS asked (q, n) ORDER BY n`,
            [JSON.stringify(queries)],
          );
          expect(rows.map(({ id }) => id)).toEqual(expected);
        },
      ),
      { numRuns: 25, ...AT_FIRST_FAILURE },
    );
    expect(found).toBeGreaterThan(0);
  });

  test("a region's own price is in force there, also when a later one is for every region", async () => {
    await importBook([
      price({ input: 1n }, { region: 'eu-west-1' }),
      price({ input: 2n }, { validFromMs: START + HOUR }),
    ]);
    const book = new PriceBook(await prices.all());
    for (const [region, input] of [
      ['eu-west-1', 1n],
      ['us-east-1', 2n],
    ] as const) {
      const asked = { modelId: MODEL, region, profile: 'in-region', tier: 'standard' } as const;
      expect(book.find(asked, START + HOUR)?.nanoUsdPerMillion).toEqual({ input });
      const found = await rowsOf(
        `SELECT input FROM price_in_force($1, $2, 'in-region', 'standard', to_timestamp($3))`,
        [MODEL, region, (START + HOUR) / 1_000],
      );
      expect(found).toEqual([{ input: input.toString() }]);
    }
  });

  test('keeps every revision: changed, withdrawn, back again; each says who', async () => {
    const one = price({ input: 1n }, { modelId: 'maker.revised' });
    const other = { ...one, nanoUsdPerMillion: { input: 2n }, contextTokens: 5 };
    for (const book of [[one], [other], [], [one]]) await importBook(book);
    expect(
      await rowsOf(
        `SELECT revision, withdrawn, input::int, context_tokens, imported_by FROM prices WHERE model_id = 'maker.revised' ORDER BY revision`,
      ),
    ).toEqual([
      { revision: 1, withdrawn: false, input: 1, context_tokens: null, imported_by: 'cli:jo' },
      { revision: 2, withdrawn: false, input: 2, context_tokens: 5, imported_by: 'cli:jo' },
      { revision: 3, withdrawn: true, input: 2, context_tokens: 5, imported_by: 'cli:jo' },
      { revision: 4, withdrawn: false, input: 1, context_tokens: null, imported_by: 'cli:jo' },
    ]);
    expect((await prices.all()).map(withoutId)).toEqual([one]);
  });

  test('each import is in the chain of the operators, with what was approved', async () => {
    const book = [price({ input: 7n }, { modelId: 'maker.audited' })];
    const { digest } = diffPrices(await prices.all(), book);
    await importBook(book);
    const [event] = await rowsOf<{ body: string }>(
      `SELECT actor, action, resource, outcome, request_id, body FROM audit_events WHERE merchant_id = '~system' ORDER BY seq DESC LIMIT 1`,
    );
    expect({ ...event, body: JSON.parse(event?.body ?? '') }).toEqual({
      actor: 'cli:jo',
      action: 'prices.imported',
      resource: 'prices',
      outcome: 'allowed',
      request_id: 'cli',
      body: { digest, added: 1, changed: 0, removed: 0 },
    });
  });

  test('of imports that were approved against one book, one is done', async () => {
    const version = await administrator.bookVersion();
    const books = [1n, 2n, 3n, 4n].map((input) => [price({ input })]);
    const done = await Promise.all(
      books.map((book) => administrator.import(ACTOR, book, { version, digest: 'x' })),
    );
    expect(done.filter((one) => one !== undefined)).toEqual([{ added: 1, changed: 0, removed: 0 }]);
    expect(await prices.all()).toHaveLength(1);
  });

  test('takes what is wrong not at all: a row that the table refuses, and one key twice', async () => {
    const good = price({ input: 1n });
    await importBook([good]);
    const before = await rowsOf('SELECT count(*) FROM prices');
    const twice = [price({ input: 2n }), price({ input: 3n })];
    const odd = [good, price({ input: 1n }, { tier: 'cheap' as 'flex', modelId: 'maker.odd' })];
    for (const book of [twice, odd]) await expect(importBook(book)).rejects.toThrow();
    expect(await rowsOf('SELECT count(*) FROM prices')).toEqual(before);
    expect((await prices.all()).map(withoutId)).toEqual([good]);
  });

  test('the starter book survives the way into the database and out again', async () => {
    const text = readFileSync(path.join(import.meta.dirname, '../../prisma/prices.csv'), 'utf8');
    const { prices: starter, problems } = parsePriceFile(text);
    expect(problems).toEqual([]);
    await importBook(starter);
    expect(writePriceFile(await prices.all())).toBe(writePriceFile(starter));
    expect(diffPrices(await prices.all(), starter)).toMatchObject({ added: [], changed: [], removed: [] });
  });

  test('the service may neither import nor rate again', async () => {
    const stranger = new PriceAdminStore(login);
    await expect(stranger.import(ACTOR, [], { version: 0n, digest: 'x' })).rejects.toThrow(
      /permission denied/,
    );
    await expect(stranger.rerate(ACTOR, 'm' as MerchantId, order())).rejects.toThrow(/permission denied/);
  });
});

describe('what a call costs', () => {
  test('is the same in SQL and in TypeScript, for random prices and usage', async () => {
    const count = fc.oneof(fc.constant(0), fc.nat(50), fc.nat(5_000_000), fc.nat(2_147_483_647));
    const usage = fc.record({
      input: count,
      output: count,
      cacheRead: count,
      cacheWrite5m: count,
      cacheWrite1h: count,
      images: fc.oneof(fc.constant(0), fc.nat(20)),
    });
    const MAX = 2n ** 63n - 1n;
    // A price that leaves out kinds is unpriced most of the time; the others have all.
    const kinds = fc.oneof(kindsOf(nano), allKinds(nano));
    const cases = fc.array(fc.record({ kinds, usage }), { minLength: 50, maxLength: 50 });
    const seen = { priced: 0, unpriced: 0 };
    await fc.assert(
      fc.asyncProperty(cases, async (all) => {
        const expected = all.map(({ kinds, usage }) => costNanoUsd(price(kinds), usage));
        const fits = all.filter((_, index) => (expected[index] ?? 0n) <= MAX);
        const costs = expected.filter((cost) => (cost ?? 0n) <= MAX);
        seen.priced += costs.filter((cost) => cost !== undefined).length;
        seen.unpriced += costs.filter((cost) => cost === undefined).length;
        const rows = await rowsOf<{ cost: string | null }>(
          `SELECT cost_of(jsonb_populate_record(NULL::prices, c->'price'), (c->>'input')::bigint, (c->>'output')::bigint, (c->>'cacheRead')::bigint,
             (c->>'cacheWrite5m')::bigint, (c->>'cacheWrite1h')::bigint, (c->>'images')::integer) AS cost
           FROM jsonb_array_elements($1) WITH ORDINALITY AS cases (c, n) ORDER BY n`,
          [JSON.stringify(fits.map(({ kinds, usage }) => ({ ...usage, price: priceRow(kinds) })))],
        );
        expect(rows.map(({ cost }) => cost)).toEqual(costs.map((cost) => cost?.toString() ?? null));
      }),
      { numRuns: 40, ...AT_FIRST_FAILURE },
    );
    expect(seen.priced).toBeGreaterThan(100);
    expect(seen.unpriced).toBeGreaterThan(100);
  });

  function priceRow(kinds: Partial<Record<PriceKind, bigint>>): object {
    const column = (kind: string) => kind.replaceAll(/[A-Z]|(?<=Write)\d/g, (c) => `_${c.toLowerCase()}`);
    return {
      id: 1,
      ...Object.fromEntries(Object.entries(kinds).map(([kind, nano]) => [column(kind), nano.toString()])),
    };
  }

  test('is held as the bound says, to the nano-dollar, for random prices', async () => {
    const tokens = fc.oneof(fc.nat(50), fc.nat(10_000_000));
    const cases = fc.array(fc.record({ kinds: allKinds(nano), inputTokens: tokens, outputTokens: tokens }), {
      minLength: 50,
      maxLength: 50,
    });
    await fc.assert(
      fc.asyncProperty(cases, async (all) => {
        const bounds = all
          .map(({ kinds, ...at }) => ({ at, bound: costBoundNanoUsd(price(kinds), { ...at, images: 0 }) }))
          .filter(({ bound }) => bound.totalNanoUsd < 2n ** 63n);
        const intents = bounds.map(({ at, bound }) => ({
          input_tokens: at.inputTokens,
          output_tokens: at.outputTokens,
          input_nano: bound.inputNanoUsd.toString(),
          output_nano_per_million: bound.outputNanoUsdPerMillion.toString(),
        }));
        const rows = await rowsOf<{ nano: string }>(
          `SELECT (with_hold(jsonb_populate_record(NULL::call_intent, i), (i->>'output_tokens')::bigint)).hold_nano AS nano
           FROM jsonb_array_elements($1) WITH ORDINALITY AS intents (i, n) ORDER BY n`,
          [JSON.stringify(intents)],
        );
        expect(rows.map(({ nano }) => nano)).toEqual(
          bounds.map(({ bound }) => bound.totalNanoUsd.toString()),
        );
      }),
      { numRuns: 20, ...AT_FIRST_FAILURE },
    );
  });

  test('how a call reached its model is what admission took it for', async () => {
    const sonnet = 'anthropic.claude-sonnet-4-20250514-v1:0';
    const profiles = [
      '',
      'global.',
      'us.',
      'us-gov.',
      'eu.',
      'apac.',
      'jp.',
      'au.',
      'ca.',
      'useful.',
      'xglobal.',
    ];
    const ids = [sonnet, 'moonshotai.kimi-k2.5']
      .flatMap((model) => profiles.map((profile) => profile + model))
      .flatMap((id) => [
        id,
        `arn:aws:bedrock:us-east-1::foundation-model/${id}`,
        `arn:aws:bedrock:us-east-1:123456789012:inference-profile/${id}`,
      ])
      .concat('arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abcdefghij12');
    for (const id of ids) {
      const { modelId, profile } = profileOf(id);
      expect([id, await rowsOf('SELECT profile_between($1, $2) AS profile', [id, modelId])]).toEqual([
        id,
        [{ profile }],
      ]);
    }
    // Where AWS said what an ARN runs, the base is that model.
    const owned = 'arn:aws:bedrock:us-east-1:123456789012';
    expect(
      await rowsOf('SELECT profile_between($1, $3) AS a, profile_between($2, $3) AS b', [
        `${owned}:provisioned-model/abcdefghij12`,
        `${owned}:application-inference-profile/abcdefghij12`,
        sonnet,
      ]),
    ).toEqual([{ a: 'provisioned', b: null }]);
  });
});

// Rating again ---------------------------------------------------------------------------------------------------

async function newMerchant(): Promise<MerchantId> {
  merchants += 1;
  const merchantId = `merchant-${String(merchants)}` as MerchantId;
  await admin.query(`INSERT INTO merchants (id, name) VALUES ('${merchantId}', 'x');
    SELECT audit_append('${merchantId}', 'x', 'merchant.created', 'x', 'allowed', 'x', '{}')`);
  return merchantId;
}

interface TestCall {
  modelId: string;
  region: string;
  /** The moment in its id, where a clock was set between the two; else that of the call. */
  idMs?: number;
  tier: 'standard' | 'priority';
  atMs: number;
  usage: TokenCounts & { images: number };
  endUser?: string | undefined;
}

const call = (more: Partial<TestCall> = {}): TestCall => ({
  modelId: MODEL,
  region: 'us-east-1',
  tier: 'standard',
  atMs: START,
  usage: { ...NO_USAGE, input: 1_000_000 },
  ...more,
});

/** A held call that was admitted at its moment by the price of the book as it is now. */
async function hold(
  merchantId: MerchantId,
  { modelId, region, tier, atMs, idMs = atMs, endUser }: TestCall,
): Promise<CallId> {
  const base = profileOf(modelId);
  const found = new PriceBook(await prices.all()).find({ ...base, region, tier }, atMs);
  const id = `${idMs.toString(16).padStart(12, '0')}7000${randomBytes(8).toString('hex')}`;
  await admin.query(
    `INSERT INTO calls (merchant_id, id, state, operation, model_id, base_model_id, region, credential_source, subject, request_id, created_at,
       deadline, tier, price_id, end_user, hold_tokens, hold_nano)
     VALUES ($1, $2, 'held', 'converse', $3, $4, $5, 'direct', 'x', 'r', $6, $6::timestamptz + interval '1 hour', $7, $8, $9, 1000000000, 1000000000000)`,
    [merchantId, id, modelId, base.modelId, region, new Date(atMs), tier, found?.id ?? null, endUser ?? null],
  );
  return id as CallId;
}

async function settle(merchantId: MerchantId, one: TestCall): Promise<CallId> {
  const [{ id } = { id: '' }] = await rowsOf<{ id: string }>('SELECT $1::uuid::text AS id', [
    await hold(merchantId, one),
  ]);
  const { images, ...tokens } = one.usage;
  const outcome = { state: 'settled', usage: { tokens, images, provenance: 'body' }, upstream: {} } as const;
  expect(await ledger.settle(merchantId, id as CallId, outcome)).toBe(true);
  return id as CallId;
}

function order(more: Partial<RerateOrder> = {}): RerateOrder {
  return {
    from: new Date(START),
    to: new Date(START + 24 * HOUR),
    reason: 'a price was wrong',
    dryRun: false,
    ...more,
  };
}
const rerate = (merchantId: MerchantId, more: Partial<RerateOrder> = {}): Promise<Rerated | undefined> =>
  administrator.rerate(ACTOR, merchantId, order(more));

/** What each call stands at: its cost and all corrections. */
async function standing(merchantId: MerchantId): Promise<Map<string, bigint>> {
  const rows = await rowsOf<{ id: string; nano: string }>(
    `SELECT c.id, (coalesce(c.cost_nano, 0) + coalesce((SELECT sum(r.delta_nano) FROM corrections r WHERE r.call_id = c.id), 0))::text AS nano
     FROM calls c WHERE c.merchant_id = $1`,
    [merchantId],
  );
  return new Map(rows.map(({ id, nano }) => [id, BigInt(nano)]));
}

async function differences(merchantId: string): Promise<unknown[]> {
  await admin.query(`SELECT set_config('app.merchant_id', $1, false)`, [merchantId]);
  return rowsOf('SELECT * FROM ledger_differences()');
}

const correctionsOf = (merchantId: MerchantId) =>
  rowsOf('SELECT * FROM corrections WHERE merchant_id = $1 ORDER BY id', [merchantId]);

describe('rating again', () => {
  const anyCall: fc.Arbitrary<TestCall> = fc.record({
    modelId: fc.constantFrom(
      MODEL,
      `us.${MODEL}`,
      `global.${MODEL}`,
      `arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.${MODEL}`,
      'maker.other',
      'maker.none',
    ),
    region: fc.constantFrom('us-east-1', 'eu-west-1', 'eu-west-3'),
    tier: fc.constantFrom('standard' as const, 'priority' as const),
    atMs: fc.integer({ min: -1, max: 5 * HOUR }).map((offset) => START + offset),
    usage: fc.record({
      input: fc.nat(1_000),
      output: fc.nat(1_000),
      cacheRead: fc.constantFrom(0, 7),
      cacheWrite5m: fc.constantFrom(0, 7),
      cacheWrite1h: fc.constantFrom(0, 7),
      images: fc.constantFrom(0, 2),
    }),
    endUser: fc.constantFrom(undefined, 'user-1', 'user-2'),
  });

  test('cost + corrections = the cost by the price in force, the sums agree, and a second run writes nothing', async () => {
    const wanted = { more: 0, less: 0, newlyPriced: 0, left: 0 };
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyCall, { minLength: 1, maxLength: 12 }),
        fc.tuple(fc.oneof(anyBook, fullBook), fullBook, fullBook),
        async (calls, [first, ...others]) => {
          const merchantId = await newMerchant();
          await importBook(first);
          const ids = new Map<string, TestCall>();
          for (const one of calls) ids.set(await settle(merchantId, one), one);
          const rows = await rowsOf('SELECT * FROM calls WHERE merchant_id = $1 ORDER BY id', [merchantId]);
          for (const book of others) {
            await importBook(book);
            const before = await standing(merchantId);
            const current = new PriceBook(await prices.all());
            const expected = [...ids].map(([id, { modelId, region, tier, atMs, usage }]) => {
              const found = current.find({ ...profileOf(modelId), region, tier }, atMs);
              const cost = atMs < START || found === undefined ? undefined : costNanoUsd(found, usage);
              return { id, inTime: atMs >= START, cost, stood: before.get(id) ?? 0n };
            });
            const deltas = expected.map(({ cost, stood }) => (cost ?? stood) - stood);
            wanted.more += deltas.filter((delta) => delta > 0n).length;
            wanted.less += deltas.filter((delta) => delta < 0n).length;
            const told = {
              calls: expected.filter(({ inTime }) => inTime).length,
              corrected: deltas.filter((delta) => delta !== 0n).length,
              deltaNanoUsd: deltas.reduce((sum, delta) => sum + delta, 0n),
              withoutPrice: expected.filter(({ inTime, cost }) => inTime && cost === undefined).length,
            };
            wanted.left += told.withoutPrice;

            expect(await rerate(merchantId, { dryRun: true })).toEqual(told);
            expect(await standing(merchantId)).toEqual(before);
            expect(await rerate(merchantId)).toEqual(told);
            expect(await standing(merchantId)).toEqual(
              new Map(expected.map(({ id, cost, stood }) => [id, cost ?? stood])),
            );
            expect(await differences(merchantId)).toEqual([]);

            const [written, audited] = [await correctionsOf(merchantId), await auditOf(merchantId)];
            expect(await rerate(merchantId)).toEqual({ ...told, corrected: 0, deltaNanoUsd: 0n });
            expect(await correctionsOf(merchantId)).toEqual(written);
            expect(await auditOf(merchantId)).toEqual(audited);
          }
          // Calls are never edited.
          expect(
            await rowsOf('SELECT * FROM calls WHERE merchant_id = $1 ORDER BY id', [merchantId]),
          ).toEqual(rows);
          wanted.newlyPriced += (
            await rowsOf(
              `SELECT 1 FROM corrections r JOIN calls c ON c.id = r.call_id WHERE r.merchant_id = $1 AND c.cost_nano IS NULL`,
              [merchantId],
            )
          ).length;
        },
      ),
      { numRuns: 20, ...AT_FIRST_FAILURE },
    );
    for (const seen of Object.values(wanted)) expect(seen).toBeGreaterThan(10);
  }, 120_000);

  const auditOf = (merchantId: MerchantId) =>
    rowsOf(
      `SELECT actor, action, resource, outcome, request_id, body FROM audit_events WHERE merchant_id = $1 AND action NOT LIKE 'call.%' AND seq > 1 ORDER BY seq`,
      [merchantId],
    );

  test('says which price, by whom and why, and is in the chain of the merchant', async () => {
    const merchantId = await newMerchant();
    await importBook([price({ input: 5_000_000n })]);
    const id = await settle(merchantId, call({ endUser: 'user-1' }));
    await importBook([price({ input: 2_000_000n })]);
    expect(await rerate(merchantId)).toEqual({
      calls: 1,
      corrected: 1,
      deltaNanoUsd: -3_000_000n,
      withoutPrice: 0,
    });
    const [current] = await prices.all();
    expect(await correctionsOf(merchantId)).toMatchObject([
      {
        call_id: id,
        price_id: current?.id.toString(),
        delta_nano: '-3000000',
        reason: 'a price was wrong',
        created_by: 'cli:jo',
      },
    ]);
    const [event] = await auditOf(merchantId);
    expect({ ...event, body: JSON.parse(String(event?.['body'])) }).toMatchObject({
      actor: 'cli:jo',
      action: 'calls.rerated',
      resource: `merchant/${merchantId}`,
      outcome: 'allowed',
      request_id: 'cli',
      body: { corrected: 1, deltaNanoUsd: -3_000_000, reason: 'a price was wrong' },
    });
    expect(
      await rowsOf(
        'SELECT end_user, cost_nano::int, correction_nano::int FROM usage_days WHERE merchant_id = $1 ORDER BY 1',
        [merchantId],
      ),
    ).toEqual([
      { end_user: '*', cost_nano: 5_000_000, correction_nano: -3_000_000 },
      { end_user: 'user-1', cost_nano: 5_000_000, correction_nano: -3_000_000 },
    ]);
  });

  test('looks at settled calls from the first moment to before the second, and at no other merchant', async () => {
    const [merchantId, other] = [await newMerchant(), await newMerchant()];
    const at = (hour: number) => call({ atMs: START + hour * HOUR });
    await settle(merchantId, at(0));
    const inside = [await settle(merchantId, at(1)), await settle(merchantId, at(2))];
    await settle(merchantId, at(3));
    await settle(other, at(1));
    await hold(merchantId, at(1));
    for (const state of ['void', 'unknown'] as const) {
      const [{ id } = { id: '' }] = await rowsOf<{ id: string }>('SELECT $1::uuid::text AS id', [
        await hold(merchantId, at(1)),
      ]);
      await ledger.settle(merchantId, id as CallId, { state, reason: 'x', upstream: {} });
    }
    await importBook([price({ input: 1_000_000n })]);
    const time = { from: new Date(START + HOUR), to: new Date(START + 3 * HOUR) };
    expect(await rerate(merchantId, time)).toMatchObject({ calls: 2, corrected: 2 });
    expect(new Set((await correctionsOf(merchantId)).map((row) => row['call_id']))).toEqual(new Set(inside));
    expect(await correctionsOf(other)).toEqual([]);
    expect(await rerate('nobody-here' as MerchantId)).toBeUndefined();
  });

  test('finds a call whose id was made by a clock that was set meanwhile', async () => {
    const merchantId = await newMerchant();
    for (const seconds of [-300, 300])
      await settle(merchantId, call({ idMs: START + seconds * 1_000, atMs: START }));
    await importBook([price({ input: 1_000_000n })]);
    expect(await rerate(merchantId, { to: new Date(START + 1) })).toMatchObject({ calls: 2, corrected: 2 });
  });

  test('leaves a call as it stands when its price is withdrawn, or has no price for a kind it used', async () => {
    const merchantId = await newMerchant();
    await importBook([price({ input: 1_000_000n })]);
    await settle(merchantId, call());
    for (const book of [[], [price({ output: 1n })]]) {
      await importBook(book);
      expect(await rerate(merchantId)).toEqual({ calls: 1, corrected: 0, deltaNanoUsd: 0n, withoutPrice: 1 });
    }
    expect(await differences(merchantId)).toEqual([]);
  });

  test('does not move what limits count, nor stop a merchant', async () => {
    const merchantId = await newMerchant();
    await admin.query(
      `INSERT INTO limits (merchant_id, scope, scope_id, spec, set_by) VALUES ($1, 'merchant', '', '{"nanoUsdPerDay": {"max": 1, "mode": "hard"}}', 'x')`,
      [merchantId],
    );
    await admin.query(
      `INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at, nano_settled, nano_max) VALUES ($1, 'merchant', '', 'total', 'epoch', 1, 1)`,
      [merchantId],
    );
    await settle(merchantId, call());
    await importBook([price({ input: 5_000_000n })]);
    const counters = await rowsOf('SELECT * FROM counters WHERE merchant_id = $1', [merchantId]);
    expect(await rerate(merchantId)).toMatchObject({ corrected: 1 });
    expect(await rowsOf('SELECT * FROM counters WHERE merchant_id = $1', [merchantId])).toEqual(counters);
    expect(await rowsOf('SELECT status FROM merchants WHERE id = $1', [merchantId])).toEqual([
      { status: 'active' },
    ]);
  });

  test('goes page by page, each call once', async () => {
    const merchantId = await newMerchant();
    for (let index = 0; index < 7; index += 1) await settle(merchantId, call({ atMs: START + index }));
    await importBook([price({ input: 1_000_000n })]);
    const seen: number[] = [];
    for (let after: string | null = null; ;) {
      const [page]: { calls: number; corrected: number; next: string | null }[] = await rowsOf(
        `SELECT calls, corrected, next FROM ledger_rerate($1, $2, $3, 'x', 'x', 'x', false, $4, 3)`,
        [merchantId, order().from, order().to, after],
      );
      seen.push(page?.calls ?? -1);
      expect(page?.corrected).toBe(page?.calls);
      if (page?.next == null) break;
      after = page.next;
    }
    expect(seen).toEqual([3, 3, 1]);
    expect(await correctionsOf(merchantId)).toHaveLength(7);
    expect(await differences(merchantId)).toEqual([]);
  });

  test('the store goes through all pages', async () => {
    const merchantId = await newMerchant();
    const id = await settle(merchantId, call());
    // The pages of the function hold a thousand.
    await admin.query(
      `INSERT INTO calls (merchant_id, id, state, operation, model_id, base_model_id, region, credential_source, subject, request_id, created_at, deadline, resolved_at, tier, provenance, input_tokens)
       SELECT merchant_id, (left(id::text, 14) || '7000-' || lpad(to_hex(n), 4, '0') || '-000000000000')::uuid, state, operation, model_id, base_model_id,
         region, credential_source, subject, request_id, created_at, deadline, resolved_at, tier, provenance, input_tokens
       FROM calls, generate_series(1, 2100) AS n WHERE merchant_id = $1 AND id = $2`,
      [merchantId, id],
    );
    await importBook([price({ input: 1_000_000n })]);
    expect(await rerate(merchantId)).toEqual({
      calls: 2_101,
      corrected: 2_101,
      deltaNanoUsd: 2_101_000_000n,
      withoutPrice: 0,
    });
  });

  test('of two that rate the same calls at once, each difference is written by one', async () => {
    const merchantId = await newMerchant();
    for (let index = 0; index < 20; index += 1) await settle(merchantId, call({ atMs: START + index }));
    await importBook([price({ input: 1_000_000n })]);
    // Their sums are locked, so that none is done before all have begun.
    await admin.query('BEGIN');
    await admin.query('SELECT 1 FROM usage_days WHERE merchant_id = $1 FOR UPDATE', [merchantId]);
    const rerates = Promise.all([1, 2, 3, 4].map(() => rerate(merchantId)));
    await until('all four wait', async () => (await waiting()) >= 4);
    await admin.query('COMMIT');
    const done = await rerates;
    expect(done.map((one) => one?.corrected).sort()).toEqual([0, 0, 0, 20]);
    expect(await correctionsOf(merchantId)).toHaveLength(20);
    expect(await differences(merchantId)).toEqual([]);
  });

  /** How many connections to this database wait for a lock. */
  async function waiting(): Promise<number> {
    await admin.query('SELECT pg_stat_clear_snapshot()');
    const rows = await rowsOf(
      `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length;
  }
});
