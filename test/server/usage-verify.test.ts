import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { SUM_COLUMNS } from '../../src/ledger/usage-sums.ts';
import { onboard, operatorOf } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import { awayFromMidnight } from '../support/calendar.ts';
import { openUsageHouse } from './usage-house.ts';
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

const usage = {
  tokens: { input: 1_000, output: 200, cacheRead: 3, cacheWrite5m: 4, cacheWrite1h: 5 },
  images: 1,
  provenance: 'body',
} as const;

/** A merchant with calls of every kind; one of them is settled, priced, and of an end user. */
async function busy(): Promise<Merchant> {
  const merchant = await house.newMerchant();
  const price = { id: house.priceId, inputNanoUsd: 5n, outputNanoUsdPerMillion: 7_000n };
  const certain: Made = {
    intent: {
      endUser: 'ann',
      bound: {
        inputTokens: 2_000,
        outputTokens: 300,
        outputTokensMost: 300,
        clampable: false,
        tier: 'standard',
        price,
      },
    },
    outcome: { state: 'settled', usage, upstream: { status: 200, latencyMs: 30 } },
  };
  await house.make(merchant, [certain, ...fc.sample(house.calls(merchant), 30)]);
  return merchant;
}

describe('verify', () => {
  test('finds nothing, whatever calls there were, and says what it looked at', async () => {
    const merchant = await busy();
    const { differences, checked } = await house.verify.verify(merchant.id);
    expect(differences).toEqual([]);
    expect(checked).toMatchObject({ calls: 31, differences: 0, at: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect(checked.counters).toBe(3);
    expect(checked.sums).toBeGreaterThan(1);
  });

  const CALL = `WHERE merchant_id = $1 AND state = 'settled' AND end_user = 'ann' AND cost_nano > 0 AND images = 1 AND input_tokens = 1000`;
  const SUM = `WHERE merchant_id = $1 AND end_user = '*' AND settled > 0`;
  // Checked below to be all there are: a new column without a check would go unseen.
  const counters = [
    'in_flight',
    'requests',
    'tokens_held',
    'tokens_unknown',
    'tokens_settled',
    'tokens_overrun',
    'nano_held',
    'nano_unknown',
    'nano_settled',
    'nano_overrun',
  ];

  test('every number of the database is among those that are looked at', async () => {
    const numbersOf = async (table: string): Promise<string[]> => {
      const { rows } = await house.admin.query<{ column_name: string }>(
        `SELECT column_name FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = $1 AND data_type IN ('bigint', 'integer', 'numeric')`,
        [table],
      );
      // A maximum is not counted: it is the limit that was in force.
      return rows.flatMap((row) => (row.column_name.endsWith('_max') ? [] : [row.column_name])).sort();
    };
    expect(await numbersOf('usage_days')).toEqual([...SUM_COLUMNS].sort());
    expect(await numbersOf('counters')).toEqual([...counters].sort());
  });

  test.each<[string, string, string]>([
    ...SUM_COLUMNS.map((column): [string, string, string] => [
      `a sum: ${column}`,
      `UPDATE usage_days SET ${column} = ${column} + 1 ${SUM}`,
      'usage',
    ]),
    ...counters.map((column): [string, string, string] => [
      `a counter: ${column}`,
      `UPDATE counters SET ${column} = ${column} + 1 WHERE merchant_id = $1 AND period = 'total'`,
      'counter',
    ]),
    ['a bucket of the histogram', `UPDATE usage_days SET latencies[7] = latencies[7] + 1 ${SUM}`, 'usage'],
    [
      'a sum of an end user',
      `UPDATE usage_days SET input_tokens = input_tokens - 1 WHERE merchant_id = $1 AND end_user = 'ann' AND input_tokens > 0`,
      'usage',
    ],
    ['sums that are gone', `DELETE FROM usage_days ${SUM}`, 'usage'],
    [
      'sums of nothing',
      `INSERT INTO usage_days (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region, settled, latencies) VALUES ($1, '*', '2026-01-01', 'x', '', 'direct', '', 'us-east-1', 1, latency_histogram('{}'))`,
      'usage',
    ],
    ['a counter that is gone', `DELETE FROM counters WHERE merchant_id = $1 AND period = 'month'`, 'counter'],
    [
      'a counter of nothing',
      `INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at, requests) VALUES ($1, 'merchant', '', 'day', '2026-01-01', 1)`,
      'counter',
    ],
    ['the cost of a call', `UPDATE calls SET cost_nano = cost_nano - 1 ${CALL}`, 'cost'],
    ['a cost that is gone', `UPDATE calls SET cost_nano = NULL ${CALL}`, 'cost'],
    [
      'a cost and every sum of it',
      `WITH c AS (UPDATE calls SET cost_nano = cost_nano + 5 ${CALL} RETURNING *), u AS (UPDATE usage_days d SET cost_nano = d.cost_nano + 5 FROM c WHERE d.merchant_id = c.merchant_id AND d.model_id = c.model_id AND d.credential_source = c.credential_source AND d.api_key_id = coalesce(c.api_key_id, '') AND d.region = c.region AND d.end_user IN ('*', 'ann')) UPDATE counters SET nano_overrun = nano_overrun + 5 WHERE merchant_id = $1`,
      'cost',
    ],
    ['the tokens of a call', `UPDATE calls SET input_tokens = input_tokens + 1000000 ${CALL}`, 'usage'],
    ['the price of a call', `UPDATE calls SET price_id = NULL ${CALL}`, 'cost'],
    ['a call that is gone', `DELETE FROM calls ${CALL}`, 'counter'],
    [
      'a call that nobody admitted',
      `INSERT INTO calls SELECT (jsonb_populate_record(c, jsonb_build_object('id', uuid_v7()))).* FROM calls c ${CALL}`,
      'usage',
    ],
    ['a state', `UPDATE calls SET state = 'void' ${CALL}`, 'usage'],
    ['an end user', `UPDATE calls SET end_user = 'ben' ${CALL}`, 'usage'],
    [
      'a correction',
      `INSERT INTO corrections (merchant_id, call_id, price_id, delta_nano, reason, created_by) SELECT merchant_id, id, price_id, 7, 'x', 'x' FROM calls ${CALL}`,
      'usage',
    ],
  ])('finds %s', async (_name, tampering, what) => {
    const [merchant, other] = [await busy(), await busy()];
    const { rowCount } = await house.admin.query(tampering, [merchant.id]);
    expect(rowCount).toBeGreaterThan(0);
    const { differences, checked } = await house.verify.verify(merchant.id);
    expect(differences.map((difference) => difference.what)).toContain(what);
    expect(checked.differences).toBe(differences.length);
    expect((await house.verify.verify(other.id)).differences).toEqual([]);
  });

  test('shows a hundred differences and counts them all', async () => {
    const merchant = await house.newMerchant();
    await house.admin.query(
      `INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at, requests) SELECT $1, 'merchant', '', 'day', date '2020-01-01' + n, 1 FROM generate_series(1, 130) n`,
      [merchant.id],
    );
    const { differences, checked } = await house.verify.verify(merchant.id);
    expect([differences.length, checked.differences]).toEqual([100, 130]);
  });

  test('two run at one time, more are told to come back', async () => {
    const merchant = await busy();
    const results = await Promise.allSettled(
      Array.from({ length: 6 }, () => house.verify.verify(merchant.id)),
    );
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'service.overloaded' });
    await expect(house.verify.verify(merchant.id)).resolves.toMatchObject({ differences: [] });
  });
});

test('over HTTP: a merchant its own, operators all, page by page', async () => {
  await using service = await startTestService();
  const merchants = [];
  for (const id of ['merchant-a', 'merchant-b', 'merchant-c']) merchants.push(await onboard(service, id));
  for (const merchant of merchants)
    await merchant.post(
      '/chat',
      { modelId: 'amazon.nova-micro-v1:0', prompt: 'x' },
      { 'x-bedrock-end-user': 'ann' },
    );
  const [first] = merchants;
  expect((await first?.get('/usage/verify'))?.json).toMatchObject({ differences: [], checked: { calls: 1 } });
  await onServer(service.database.adminUrl, (client) =>
    client.query(
      `UPDATE usage_days SET input_tokens = input_tokens + 1 WHERE merchant_id = 'merchant-b' AND end_user = '*'`,
    ),
  );
  const operator = operatorOf(service);
  const seen: { merchantId: string; differences: { what: string; kept: unknown; counted: unknown }[] }[] = [];
  let cursor: string | undefined;
  do {
    const page = (
      await operator.get(`/api/ops/usage/verify?limit=2${cursor === undefined ? '' : `&cursor=${cursor}`}`)
    ).json as { items: typeof seen; nextCursor?: string };
    expect(page.items.length).toBeLessThanOrEqual(2);
    seen.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  expect(
    seen.map(({ merchantId, differences }) => [merchantId, differences.map(({ what }) => what)]),
  ).toEqual([
    ['merchant-a', []],
    ['merchant-b', ['usage']],
    ['merchant-c', []],
  ]);
  expect(seen[1]?.differences[0]?.kept).not.toEqual(seen[1]?.differences[0]?.counted);
  const models = await operator.get('/api/ops/usage?timeframe=day&groupBy=model,day&merchant=merchant-c');
  expect(models.json['items']).toMatchObject([
    { merchantId: 'merchant-c', key: { model: 'amazon.nova-micro-v1:0' }, calls: { settled: 1 } },
  ]);
  const one = (await operator.get('/api/ops/usage?timeframe=day&groupBy=model&limit=1')).json as {
    nextCursor: string;
  };
  expect(
    (
      await operator.get(
        `/api/ops/usage?timeframe=day&groupBy=model&limit=1&cursor=${encodeURIComponent(one.nextCursor)}`,
      )
    ).json['items'],
  ).toMatchObject([{ merchantId: 'merchant-b' }]);
  expect((await operator.get('/api/ops/usage?cursor=x%27y')).status).toBe(400);
});
