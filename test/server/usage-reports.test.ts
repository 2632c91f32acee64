import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { bucketBounds, latencyOf } from '../../src/ledger/latency.ts';
import { USAGE_GROUPS } from '../../src/ledger/usage.ts';
import type { UsageGroup, UsageRecord, UsageSums } from '../../src/ledger/usage.ts';
import { awayFromMidnight } from '../support/calendar.ts';
import { INSTANCE, openUsageHouse } from './usage-house.ts';
import type { Made, Merchant, UsageHouse } from './usage-house.ts';

let house: UsageHouse;
let close: () => Promise<void>;

beforeAll(() => awayFromMidnight(), 180_000);
beforeAll(async () => {
  ({ house, close } = await openUsageHouse());
});
afterAll(async () => {
  await close();
});

const HALF_OCTAVE = Math.SQRT2;
const PERCENTILES = [
  ['p50', 50],
  ['p90', 90],
  ['p99', 99],
] as const;
const day = (daysAgo: number) => new Date(Date.now() - daysAgo * 86_400_000).toISOString().slice(0, 10);

async function allRecords({ id }: Merchant): Promise<UsageRecord[]> {
  const records: UsageRecord[] = [];
  for await (const page of house.usage.pages(id, { from: day(60), to: day(-2) }))
    records.push(...page.records);
  return records;
}

const KEYS: Record<UsageGroup, (record: UsageRecord) => string | null> = {
  model: ({ modelId }) => modelId,
  credential: ({ credentialId }) => credentialId,
  instance: ({ modelId }) => (modelId === INSTANCE ? modelId : null),
  apiKey: ({ apiKeyId }) => apiKeyId,
  endUser: ({ endUser }) => endUser,
  source: ({ credentialSource }) => credentialSource,
  region: ({ region }) => region,
  day: ({ createdAt }) => createdAt.slice(0, 10),
};

/** Sums over rows, without latency. */
function sumsOf(records: readonly UsageRecord[]): Omit<UsageSums, 'latencyMs'> {
  const count = (is: (record: UsageRecord) => boolean) => records.filter(is).length;
  const sum = (of: (record: UsageRecord) => number) => records.reduce((all, record) => all + of(record), 0);
  const settled = (record: UsageRecord) => record.state === 'settled';
  const throttled = (record: UsageRecord) => record.awsStatus === 429;
  const kinds = ['input', 'output', 'cacheRead', 'cacheWrite5m', 'cacheWrite1h'] as const;
  const tokens = Object.fromEntries(
    kinds.map((kind) => [kind, sum((record) => record.tokens[kind])]),
  ) as UsageSums['tokens'];
  const cost = sum(({ costNanoUsd }) => costNanoUsd ?? 0);
  return {
    calls: {
      settled: count(settled),
      void: count(({ state }) => state === 'void'),
      unknown: count(({ state }) => state === 'unknown'),
      estimated: count((record) => settled(record) && record.provenance === 'estimated'),
      unpriced: count((record) => settled(record) && record.costNanoUsd === null),
      throttled: count(throttled),
      failed: count((record) => !settled(record) && !throttled(record)),
    },
    tokens: { ...tokens, total: kinds.reduce((all, kind) => all + tokens[kind], 0) },
    images: sum(({ images }) => images),
    costNanoUsd: cost,
    correctionNanoUsd: 0,
    totalNanoUsd: cost,
  };
}

/** The percentiles that a report shows are within half an octave of those of the rows; the mean is that of the rows. */
function expectLatency(shown: UsageSums['latencyMs'], records: readonly UsageRecord[]): void {
  const latencies = records
    .filter(({ state, latencyMs }) => state === 'settled' && latencyMs !== null)
    .map(({ latencyMs }) => latencyMs ?? 0)
    .sort((a, b) => a - b);
  if (latencies.length === 0) {
    expect(shown).toBeNull();
    return;
  }
  expect(shown?.mean).toBeCloseTo(latencies.reduce((all, ms) => all + ms, 0) / latencies.length, 0);
  for (const [name, percent] of PERCENTILES) {
    const truth = Math.max(1, latencies[Math.ceil((latencies.length * percent) / 100) - 1] ?? 0);
    const seen = shown?.[name] ?? 0;
    expect(seen).toBeGreaterThan(truth / HALF_OCTAVE);
    expect(seen).toBeLessThan(truth * HALF_OCTAVE);
  }
}

describe('reports say what the rows say', () => {
  test('random calls of several days, every grouping', async () => {
    const merchant = await house.newMerchant();
    const ids = await house.make(merchant, fc.sample(house.calls(merchant), 150));
    await house.shiftDays(merchant, ids.slice(0, 40), 1);
    await house.shiftDays(merchant, ids.slice(40, 80), 9);
    const records = (await allRecords(merchant)).filter(({ state }) => state !== 'held');
    expect(records.length).toBeGreaterThan(100);
    const span = { from: day(20), to: day(-1) };
    const groupings = [
      ...USAGE_GROUPS.map((group) => [group]),
      [...USAGE_GROUPS],
      [],
      ...fc.sample(fc.shuffledSubarray([...USAGE_GROUPS]), 25),
    ];
    for (const groupBy of groupings) {
      const report = await house.usage.report(merchant.id, span, groupBy);
      expect(report).toMatchObject({ ...sumsOf(records), timeframe: null, ...span });
      expectLatency(report.latencyMs, records);
      const groups = new Map<string, UsageRecord[]>();
      for (const record of groupBy.length === 0 ? [] : records) {
        const key = JSON.stringify(Object.fromEntries(groupBy.map((group) => [group, KEYS[group](record)])));
        groups.set(key, [...(groups.get(key) ?? []), record]);
      }
      const shown = new Map(
        report.groups.map(({ key, latencyMs, ...sums }) => [JSON.stringify(key), { sums, latencyMs }]),
      );
      expect([...shown.keys()].sort()).toEqual([...groups.keys()].sort());
      expect(report.groups).toHaveLength(groups.size);
      for (const [key, members] of groups) {
        expect(shown.get(key)?.sums).toEqual(sumsOf(members));
        expectLatency(shown.get(key)?.latencyMs ?? null, members);
      }
    }
  });

  test('days that were not asked for are not in it, and nothing of another merchant', async () => {
    const [merchant, other] = [await house.newMerchant(), await house.newMerchant()];
    const calls = fc.sample(
      house.calls(merchant).filter(({ outcome }) => outcome !== undefined),
      12,
    );
    const ids = await house.make(merchant, calls);
    await house.make(other, fc.sample(house.calls(other), 5));
    await house.shiftDays(merchant, ids.slice(0, 5), 1);
    await house.shiftDays(merchant, ids.slice(5, 7), 2);
    const count = async (from: number, to: number) => {
      const { calls: by } = await house.usage.report(merchant.id, { from: day(from), to: day(to) }, [
        'endUser',
      ]);
      return by.settled + by.void + by.unknown;
    };
    expect([await count(2, 1), await count(1, 0), await count(0, -1), await count(2, -1)]).toEqual([
      2, 5, 5, 12,
    ]);
    expect(await count(9, 2)).toBe(0);
  });

  test('corrections are beside the cost', async () => {
    const merchant = await house.newMerchant();
    await house.make(merchant, fc.sample(house.calls(merchant), 40));
    const { costNanoUsd } = await house.usage.report(merchant.id, 'day', []);
    await house.admin.query(`UPDATE usage_days SET correction_nano = -3 WHERE merchant_id = $1`, [
      merchant.id,
    ]);
    const report = await house.usage.report(merchant.id, 'day', ['day']);
    const rows = await house.admin.query(
      `SELECT 1 FROM usage_days WHERE merchant_id = $1 AND end_user = '*'`,
      [merchant.id],
    );
    const correctionNanoUsd = -3 * (rows.rowCount ?? 0);
    const sums = { costNanoUsd, correctionNanoUsd, totalNanoUsd: costNanoUsd + correctionNanoUsd };
    expect(report).toMatchObject(sums);
    expect(report.groups).toMatchObject([sums]);
  });

  test('a call that was unknown leaves that count when it settles', async () => {
    const merchant = await house.newMerchant();
    const unknown = { state: 'unknown', reason: 'x', upstream: { status: 429 } } as const;
    const [id] = await house.make(merchant, [{ intent: { endUser: 'ann' }, outcome: unknown }]);
    expect((await house.usage.report(merchant.id, 'day', [])).calls).toMatchObject({
      unknown: 1,
      throttled: 1,
    });
    await house.ledger.settle(merchant.id, id as NonNullable<typeof id>, {
      state: 'void',
      reason: 'x',
      upstream: { status: 400 },
    });
    const report = await house.usage.report(merchant.id, 'day', ['endUser']);
    expect(report.calls).toMatchObject({ unknown: 0, void: 1, throttled: 0, failed: 1 });
    expect(report.groups.map(({ key }) => key)).toEqual([{ endUser: 'ann' }]);
  });

  test('a report of more groups than it may have is refused, not cut', async () => {
    const merchant = await house.newMerchant();
    await house.admin.query(
      `INSERT INTO usage_days (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region, settled, latencies)
       SELECT $1, '*', (now() AT TIME ZONE 'UTC')::date, 'm' || n, '', 'direct', '', 'us-east-1', 1, latency_histogram('{}') FROM generate_series(1, 10001) n`,
      [merchant.id],
    );
    await expect(house.usage.report(merchant.id, 'day', ['model'])).rejects.toMatchObject({
      code: 'request.invalid',
    });
    await house.admin.query(`DELETE FROM usage_days WHERE merchant_id = $1 AND model_id = 'm1'`, [
      merchant.id,
    ]);
    const report = await house.usage.report(merchant.id, 'day', ['model']);
    expect([report.groups.length, report.calls.settled]).toEqual([10_000, 10_000]);
    await house.admin.query(`DELETE FROM usage_days WHERE merchant_id = $1`, [merchant.id]);
  });
});

describe('periods', () => {
  test('the running ones, by the database’s clock', async () => {
    const merchant = await house.newMerchant();
    const { rows } = await house.admin.query<{ now: Date }>(`SELECT now() AS now`);
    const now = rows[0]?.now ?? new Date();
    const today = now.toISOString().slice(0, 10);
    const to = new Date(now.getTime() + 86_400_000).toISOString().slice(0, 10);
    const monday = new Date(now.getTime() - ((now.getUTCDay() + 6) % 7) * 86_400_000)
      .toISOString()
      .slice(0, 10);
    const first = {
      day: today,
      week: monday,
      month: `${today.slice(0, 7)}-01`,
      year: `${today.slice(0, 4)}-01-01`,
    };
    for (const timeframe of ['day', 'week', 'month', 'year'] as const)
      expect(await house.usage.report(merchant.id, timeframe, [])).toMatchObject({
        timeframe,
        from: first[timeframe],
        to,
      });
  });

  const settled: Made = {
    intent: {},
    outcome: {
      state: 'settled',
      usage: {
        tokens: { input: 600, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 },
        provenance: 'body',
      },
      upstream: {},
    },
  };

  test.each([
    ['half of it has passed', 5, 5, true],
    ['nine tenths have passed', 9, 1, true],
    ['less than a tenth has passed', 0, 40, false],
    ['it is over', 10, 0, false],
    ['it has not begun', -1, 5, false],
  ])('a forecast when %s', async (_name, before, after, told) => {
    const merchant = await house.newMerchant();
    await house.make(merchant, [settled]);
    const span = { from: day(before), to: day(-after) };
    const { forecast, tokens } = await house.usage.report(merchant.id, span, []);
    if (!told) {
      expect(forecast).toBeNull();
      return;
    }
    const elapsed = (Date.now() - Date.parse(span.from)) / (Date.parse(span.to) - Date.parse(span.from));
    expect(tokens.total).toBe(600);
    expect(forecast).toMatchObject({ until: span.to, elapsed: expect.closeTo(elapsed, 3) });
    expect(forecast?.tokens).toBe(Math.round(600 / (forecast?.elapsed ?? 1)));
  });

  test('the forecast of a running period ends with the period, not with today', async () => {
    const merchant = await house.newMerchant();
    await house.make(merchant, [settled]);
    const { forecast } = await house.usage.report(merchant.id, 'year', []);
    const year = new Date().getUTCFullYear();
    const elapsed = (Date.now() - Date.UTC(year, 0)) / (Date.UTC(year + 1, 0) - Date.UTC(year, 0));
    if (elapsed < 0.1) expect(forecast).toBeNull();
    else
      expect(forecast).toMatchObject({
        until: `${String(year + 1)}-01-01`,
        tokens: Math.round(600 / (forecast?.elapsed ?? 0)),
      });
  });
});

describe('latency', () => {
  test('every bucket takes what its bounds say, and spans less than half an octave', async () => {
    const { rows } = await house.admin.query<{ ms: number; bucket: number }>(
      `SELECT ms, latency_bucket(ms) AS bucket FROM (SELECT generate_series(0, 5000) UNION SELECT floor(2 ^ (n / 8.0) + d)::int FROM generate_series(0, 168) n, generate_series(-1, 1) d) s (ms)`,
    );
    for (const { ms, bucket } of rows) {
      const [lowest, highest] = bucketBounds(bucket);
      expect(Math.max(1, ms)).toBeGreaterThanOrEqual(lowest);
      if (bucket < 40) expect(Math.max(1, ms)).toBeLessThanOrEqual(highest);
    }
    for (let bucket = 2; bucket <= 40; bucket += 1) {
      const [lowest, highest] = bucketBounds(bucket);
      expect(highest / lowest).toBeLessThan(HALF_OCTAVE);
    }
  });

  test('percentiles of any latencies are within half an octave of the true ones', () => {
    const bucketOf = (ms: number) =>
      Math.min(40, Math.max(1, Math.ceil(2 * Math.log2(Math.max(ms, 1) + 0.5))));
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.nat(10), fc.nat(1_000), fc.nat(1_048_575)), { minLength: 1, maxLength: 300 }),
        (all) => {
          const counts = Array.from({ length: 40 }, () => 0);
          for (const ms of all) counts[bucketOf(ms) - 1] = (counts[bucketOf(ms) - 1] ?? 0) + 1;
          const sorted = [...all].sort((a, b) => a - b);
          const shown = latencyOf(
            counts,
            all.reduce((sum, ms) => sum + ms, 0),
          );
          for (const [name, percent] of PERCENTILES) {
            const truth = Math.max(1, sorted[Math.ceil((all.length * percent) / 100) - 1] ?? 0);
            const ratio = (shown?.[name] ?? 0) / truth;
            expect(ratio).toBeGreaterThan(1 / HALF_OCTAVE);
            expect(ratio).toBeLessThan(HALF_OCTAVE);
          }
        },
      ),
    );
  });

  test('nothing has no latency', () => {
    expect(
      latencyOf(
        Array.from({ length: 40 }, () => 0),
        0,
      ),
    ).toBeNull();
  });
});

describe('operators’ sums', () => {
  test('page by page the same as the merchants’ reports, by model and day or not, for all or one', async () => {
    const mine: Merchant[] = [];
    for (let index = 0; index < 4; index += 1) {
      const merchant = await house.newMerchant();
      const ids = await house.make(merchant, fc.sample(house.calls(merchant), 25));
      await house.shiftDays(merchant, ids.slice(0, 10), 1);
      mine.push(merchant);
    }
    const span = { from: day(5), to: day(-1) };
    for (const groupBy of [[], ['model'], ['day'], ['model', 'day']] as ('model' | 'day')[][]) {
      const seen: unknown[] = [];
      let cursor: string | undefined;
      do {
        const page = await house.usage.byMerchant(span, 3, { groupBy, cursor });
        expect(page).toMatchObject(span);
        seen.push(...page.items.filter(({ merchantId }) => mine.some(({ id }) => id === merchantId)));
        cursor = page.nextCursor;
      } while (cursor !== undefined);
      const expected: unknown[] = [];
      for (const { id: merchantId } of mine) {
        const {
          groups,
          timeframe: _t,
          from: _f,
          to: _u,
          forecast: _c,
          ...whole
        } = await house.usage.report(merchantId, span, groupBy);
        expected.push(
          ...(groupBy.length === 0
            ? [{ merchantId, key: {}, ...whole }]
            : groups.map((group) => ({ merchantId, ...group }))),
        );
        const alone = await house.usage.byMerchant(span, 200, { groupBy, merchantId });
        expect(new Set(alone.items.map((item) => item.merchantId))).toEqual(new Set([merchantId]));
      }
      const text = (items: unknown[]) => items.map((item) => JSON.stringify(item)).sort();
      expect(seen.map(normal)).toHaveLength(expected.length);
      expect(text(seen.map(normal))).toEqual(text(expected.map(normal)));
    }
  });

  function normal(item: unknown): unknown {
    return JSON.parse(
      JSON.stringify(item, (_key, value: unknown) =>
        typeof value === 'object' && value !== null && !Array.isArray(value)
          ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
          : value,
      ),
    );
  }
});
