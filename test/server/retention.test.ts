import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Secret } from '../../src/domain/secret.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { RetentionStore } from '../../src/ledger/retention-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { runCommand } from '../cli/transcript.ts';
import { onServer } from '../support/postgres.ts';
import { openUsageHouse } from './usage-house.ts';
import type { Made, Merchant, UsageHouse } from './usage-house.ts';
import { until } from '../support/until.ts';

const ADMIN = { subject: 'cli:test', requestId: 'cli' };

let house: UsageHouse;
let adminUrl: string;
let adminDatabase: Database;
let store: RetentionStore;
let close: () => Promise<void>;

beforeAll(async () => {
  ({ house, close } = await openUsageHouse());
  const url = new URL(process.env['TEST_ADMIN_URL'] ?? '');
  url.pathname = new URL(house.url).pathname;
  adminUrl = url.href;
  adminDatabase = new Database({
    url: new Secret(adminUrl),
    connectionsMax: 2,
    statementTimeoutMs: 30_000,
    onPoolError: () => undefined,
  });
  store = new RetentionStore(adminDatabase);
});
afterAll(async () => {
  await adminDatabase[Symbol.asyncDispose]();
  await close();
});

/** The first day of a month so many months ago: 2026-01-01. */
function monthAgo(months: number): string {
  const now = new Date();
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months, 1)).toISOString().slice(0, 10);
}
const partitionOf = (month: string) => `calls_${month.slice(0, 7).replace('-', '_')}`;

/** As a merchant all of whose calls began on days of that month: rows, ids, sums and counters. */
async function age(merchant: Merchant, month: string): Promise<void> {
  const part = partitionOf(month);
  await onServer(adminUrl, (client) =>
    client.query(`
      SET ROLE merchant_bedrock_owner;
      CREATE TABLE IF NOT EXISTS ${part} PARTITION OF calls FOR VALUES FROM (month_floor('${month}')) TO (month_floor(month_after('${month}')));
      ALTER TABLE ${part} ENABLE ROW LEVEL SECURITY;
      ALTER TABLE ${part} FORCE ROW LEVEL SECURITY;
      DROP POLICY IF EXISTS tenant_rows ON ${part};
      CREATE POLICY tenant_rows ON ${part} USING (merchant_id = (SELECT tenant())) WITH CHECK (merchant_id = (SELECT tenant()));
      RESET ROLE;
      SELECT set_config('app.merchant_id', '${merchant.id}', false);
      CREATE TEMP TABLE aged AS
        SELECT id AS before, t.at, overlay(id::text PLACING substr(uuid_v7_floor(t.at)::text, 1, 13) FROM 1 FOR 13)::uuid AS id
        FROM calls c CROSS JOIN LATERAL (SELECT '${month} 00:00+00'::timestamptz + make_interval(days => (hashtext(c.id::text) & 15), mins => 7)) AS t (at)
        WHERE merchant_id = '${merchant.id}';
      UPDATE idempotency_keys k SET call_id = a.id FROM aged a WHERE k.call_id = a.before;
      UPDATE calls c SET id = a.id, created_at = a.at FROM aged a WHERE c.merchant_id = '${merchant.id}' AND c.id = a.before;
      DELETE FROM counters WHERE merchant_id = '${merchant.id}';
      INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at, requests, in_flight, tokens_held, tokens_unknown, tokens_settled, tokens_overrun, nano_held, nano_unknown, nano_settled, nano_overrun)
        SELECT '${merchant.id}', n.* FROM counted_counters('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS n;`),
  );
  await house.rebuildSums(merchant);
}

const price = () => ({ id: house.priceId, inputNanoUsd: 5_000n, outputNanoUsdPerMillion: 7_000n });
const settled = (endUser?: string): Made => ({
  intent: {
    ...(endUser !== undefined && { endUser }),
    bound: {
      inputTokens: 20_000_000,
      outputTokens: 300,
      outputTokensMost: 300,
      clampable: false,
      tier: 'standard',
      price: { ...price(), inputNanoUsd: 2_000_000_000n },
    },
  },
  outcome: {
    state: 'settled',
    usage: {
      tokens: { input: 1_000, output: 200, cacheRead: 3, cacheWrite5m: 4, cacheWrite1h: 5 },
      images: 0,
      provenance: 'body',
    },
    upstream: { status: 200, latencyMs: 30 },
  },
});

/** A merchant whose calls, of every kind that is resolved, are all of that month; one of them was corrected. */
async function oldMerchant(month: string): Promise<Merchant> {
  const merchant = await house.newMerchant();
  const random = fc
    .sample(house.calls(merchant), 60)
    .filter(({ outcome }) => outcome !== undefined && outcome.state !== 'unknown');
  await house.make(merchant, [settled('ann'), ...random]);
  await age(merchant, month);
  await house.admin.query(
    `WITH c AS MATERIALIZED (SELECT c FROM calls c WHERE merchant_id = '${merchant.id}' AND end_user = 'ann' AND cost_nano > 0 AND images = 0 LIMIT 1),
       r AS (INSERT INTO corrections (merchant_id, call_id, price_id, delta_nano, reason, created_by) SELECT (c).merchant_id, (c).id, ${String(house.priceId)}, 7, 'x', 'x' FROM c)
     UPDATE usage_days d SET correction_nano = d.correction_nano + 7 FROM c, usage_rows(c.c) u
     WHERE d.merchant_id = (c).merchant_id AND d.end_user = u.end_user AND d.day = u.day AND d.model_id = u.model_id AND d.credential_id = u.credential_id
       AND d.credential_source = u.credential_source AND d.api_key_id = u.api_key_id AND d.region = u.region`,
  );
  expect(await differences(merchant)).toEqual([]);
  return merchant;
}

const differences = async ({ id }: Merchant) => (await house.verify.verify(id)).differences;
const rowsOf = async (sql: string) => (await house.admin.query<Record<string, unknown>>(sql)).rows;

describe('a month that is retired', () => {
  test('leaves the books right, its rows in the archive, and a line in the audit trail', async () => {
    const month = monthAgo(4);
    const [one, two] = [await oldMerchant(month), await oldMerchant(month)];
    await house.make(one, [settled('ann'), settled()]);
    const table = partitionOf(month);
    const [{ calls } = {}] = await rowsOf(`SELECT count(*)::int AS calls FROM ${table}`);
    const sums = `SELECT md5(string_agg(d::text, ',' ORDER BY d::text)) FROM usage_days d`;
    const before = await rowsOf(sums);
    expect(await store.retire(ADMIN, month)).toEqual({ state: 'retired', calls, merchants: 2 });
    expect(await differences(one)).toEqual([]);
    expect(await differences(two)).toEqual([]);
    expect(await rowsOf(sums)).toEqual(before);
    expect(await rowsOf(`SELECT count(*)::int AS calls FROM archive.${table}`)).toEqual([{ calls }]);
    expect(
      await rowsOf(
        `SELECT relrowsecurity, (SELECT count(*)::int FROM pg_policies WHERE schemaname = 'archive') AS policies,
           has_schema_privilege('merchant_bedrock_service', 'archive', 'USAGE') AS usage,
           has_table_privilege('merchant_bedrock_service', oid, 'SELECT, INSERT, UPDATE, DELETE') AS reach
         FROM pg_class WHERE oid = 'archive.${table}'::regclass`,
      ),
    ).toEqual([{ relrowsecurity: false, policies: 0, usage: false, reach: false }]);
    expect(
      await rowsOf(
        `SELECT merchant_id, actor, resource, body::jsonb AS body FROM audit_events WHERE action = 'calls.retired'`,
      ),
    ).toEqual([
      {
        merchant_id: '~system',
        actor: 'cli:test',
        resource: `calls/${month.slice(0, 7)}`,
        body: { calls, merchants: 2, table: `archive.${table}` },
      },
    ]);
    // A second time there is nothing to do.
    expect(await store.retire(ADMIN, month)).toEqual({ state: 'gone' });
    expect(
      await rowsOf(`SELECT count(*)::int AS n FROM audit_events WHERE action = 'calls.retired'`),
    ).toEqual([{ n: 1 }]);
    await house.make(two, [settled('ann')]);
    expect(await differences(two)).toEqual([]);
  });

  describe('still shows', () => {
    const month = monthAgo(5);
    let merchant: Merchant;
    beforeAll(async () => {
      merchant = await oldMerchant(month);
      await store.retire(ADMIN, month);
    });

    test.each([
      [
        'a total',
        `UPDATE counters SET nano_settled = nano_settled - 1 WHERE merchant_id = $1 AND period = 'total'`,
      ],
      [
        'a count of requests',
        `UPDATE counters SET requests = requests + 1 WHERE merchant_id = $1 AND period = 'total'`,
      ],
      [
        'tokens of a month',
        `UPDATE counters SET tokens_overrun = tokens_overrun + 1 WHERE merchant_id = $1 AND period = 'month'`,
      ],
      ['a counter that is gone', `DELETE FROM counters WHERE merchant_id = $1 AND period = 'day'`],
      ['a held token', `UPDATE counters SET tokens_held = 1 WHERE merchant_id = $1 AND period = 'total'`],
      ['a cost of a day', `UPDATE usage_days SET cost_nano = cost_nano + 1 WHERE merchant_id = $1`],
      ['a latency', `UPDATE usage_days SET latencies[7] = latencies[7] + 1 WHERE merchant_id = $1`],
      ['a day that is gone', `DELETE FROM usage_days WHERE merchant_id = $1 AND end_user = 'ann'`],
      ['a correction', `UPDATE corrections SET delta_nano = 8 WHERE merchant_id = $1`],
      ['a correction that is gone', `DELETE FROM corrections WHERE merchant_id = $1`],
      [
        'an opening balance',
        `UPDATE counter_openings SET nano_overrun = nano_overrun + 1 WHERE merchant_id = $1`,
      ],
      [
        'an opening balance that is gone',
        `DELETE FROM usage_openings WHERE merchant_id = $1 AND end_user = 'ann'`,
      ],
    ])('%s that was tampered with', async (_name, tampering) => {
      expect(await differences(merchant)).toEqual([]);
      await house.admin.query('BEGIN');
      try {
        const { rowCount } = await house.admin.query(tampering, [merchant.id]);
        expect(rowCount).toBeGreaterThan(0);
        await house.admin.query(`SELECT set_config('app.merchant_id', $1, true)`, [merchant.id]);
        expect((await rowsOf('SELECT * FROM ledger_differences()')).length).toBeGreaterThan(0);
      } finally {
        await house.admin.query('ROLLBACK');
      }
    });
  });

  test('counts for the credit', async () => {
    const month = monthAgo(6);
    const merchant = await house.newMerchant();
    await house.make(merchant, [settled()]);
    await age(merchant, month);
    await store.retire(ADMIN, month);
    const [{ spent } = {}] = await rowsOf(
      `SELECT nano_settled::float8 AS spent FROM counters WHERE merchant_id = '${merchant.id}' AND period = 'total'`,
    );
    const max = Number(spent) + 2_000_100_000;
    await house.admin.query(
      `INSERT INTO limits (merchant_id, scope, scope_id, spec, set_by) VALUES ($1, 'merchant', '', $2, 'x')`,
      [merchant.id, JSON.stringify({ nanoUsdCredit: { max, mode: 'hard' } })],
    );
    // One more fits, and only one: what the archive has is spent.
    const intent = { ...settled().intent };
    await house.make(merchant, [{ intent, outcome: undefined }]);
    await expect(house.make(merchant, [{ intent, outcome: undefined }])).rejects.toThrow('limit');
    expect(await differences(merchant)).toEqual([]);
  });

  test('stays while a call is held or unknown, and goes when that is resolved', async () => {
    const month = monthAgo(7);
    const merchant = await house.newMerchant();
    const reason = 'x';
    await house.make(merchant, [
      settled(),
      { intent: {}, outcome: { state: 'unknown', reason, upstream: {} } },
      { intent: {}, outcome: undefined },
    ]);
    await age(merchant, month);
    const ids = await rowsOf(
      `SELECT id::text, state FROM calls WHERE merchant_id = '${merchant.id}' AND state <> 'settled' ORDER BY state`,
    );
    expect(await store.retire(ADMIN, month)).toEqual({ state: 'blocked', held: 1, unknown: 1 });
    await house.ledger.settle(merchant.id, ids[0]?.['id'] as never, { state: 'void', reason, upstream: {} });
    expect(await store.retire(ADMIN, month)).toEqual({ state: 'blocked', held: 0, unknown: 1 });
    expect(await differences(merchant)).toEqual([]);
    expect(await rowsOf(`SELECT 1 FROM counter_openings WHERE merchant_id = '${merchant.id}'`)).toEqual([]);
    await house.ledger.settle(merchant.id, ids[1]?.['id'] as never, settled().outcome as never);
    expect(await store.retire(ADMIN, month)).toEqual({ state: 'retired', calls: 3, merchants: 1 });
    expect(await differences(merchant)).toEqual([]);
  });

  test('frees the keys of void calls, and no other', async () => {
    const month = monthAgo(8);
    const merchant = await house.newMerchant();
    const idempotency = (byte: number) => ({
      keyHash: `0${String(byte)}`.repeat(32),
      bodyHash: '01'.repeat(32),
    });
    await house.make(merchant, [
      { intent: { idempotency: idempotency(1) }, outcome: settled().outcome },
      { intent: { idempotency: idempotency(2) }, outcome: { state: 'void', reason: 'x', upstream: {} } },
    ]);
    await age(merchant, month);
    await store.retire(ADMIN, month);
    await expect(
      house.make(merchant, [{ intent: { idempotency: idempotency(1) }, outcome: undefined }]),
    ).rejects.toThrow('replay');
    await house.make(merchant, [{ intent: { idempotency: idempotency(2) }, outcome: undefined }]);
  });

  test('takes nobody out of service: calls are admitted meanwhile', async () => {
    const month = monthAgo(9);
    const merchant = await oldMerchant(month);
    const stop = new AbortController();
    let made = 0;
    const busy = Array.from({ length: 4 }, async () => {
      while (!stop.signal.aborted) {
        await house.make(merchant, [settled('ann')]);
        made += 1;
      }
    });
    const proofs: unknown[] = [];
    const proving = (async () => {
      while (!stop.signal.aborted) proofs.push(...(await differences(merchant)));
    })();
    const retired = await store.retire(ADMIN, month);
    const before = made;
    await until('more calls are made', () => made >= before + 8);
    stop.abort();
    await Promise.all([...busy, proving]);
    expect(retired.state).toBe('retired');
    expect(proofs).toEqual([]);
    expect(await differences(merchant)).toEqual([]);
  });

  test('gives up, with nothing done, when somebody does not let it through', async () => {
    const month = monthAgo(10);
    const merchant = await oldMerchant(month);
    await house.admin.query('BEGIN');
    await house.admin.query('LOCK TABLE calls IN ACCESS SHARE MODE');
    const outcome = await Promise.race([
      store.retire(ADMIN, month).then(
        () => 'retired',
        () => 'gave up',
      ),
      setTimeout(25_000, 'waits', { ref: false }),
    ]);
    await house.admin.query('COMMIT');
    expect(outcome).toBe('gave up');
    expect(await differences(merchant)).toEqual([]);
    expect(await rowsOf(`SELECT 1 FROM usage_openings WHERE merchant_id = '${merchant.id}'`)).toEqual([]);
    expect(await store.retire(ADMIN, month)).toMatchObject({ state: 'retired' });
  });

  test('must have ended two months ago', async () => {
    for (const month of [monthAgo(0), monthAgo(1), `${monthAgo(11).slice(0, 7)}-02`])
      await expect(store.retire(ADMIN, month)).rejects.toThrow();
  });
});

describe('counters that nobody needs', () => {
  const sweep = () =>
    new LedgerStore(house.connection, { processId: crypto.randomUUID() }).sweepCounters(500);

  test('vanish when they hold nothing, and nobody misses them; newer ones are missed', async () => {
    const merchant = await house.newMerchant();
    const { id } = merchant;
    await house.admin.query(
      `INSERT INTO limits (merchant_id, scope, scope_id, spec, set_by) VALUES ($1, 'merchant', '', '{"requestsPerMinute": {"max": 1000, "mode": "hard"}}', 'x')`,
      [id],
    );
    await house.make(merchant, [
      settled(),
      { intent: { endUser: 'x' }, outcome: { state: 'unknown', reason: 'x', upstream: {} } },
    ]);
    const minutes = `SELECT count(*)::int AS n FROM counters WHERE merchant_id = '${id}' AND period = 'minute'`;
    await sweep();
    expect(await rowsOf(minutes)).toEqual([{ n: 1 }]);
    await house.admin.query(`DELETE FROM counters WHERE merchant_id = $1 AND period = 'minute'`, [id]);
    expect(await differences(merchant)).toMatchObject([{ what: 'counter', kept: null }]);

    await age(merchant, monthAgo(20));
    const holding = `UPDATE counters SET tokens_unknown = tokens_unknown + $2 WHERE merchant_id = $1 AND period = 'minute'`;
    await house.admin.query(holding, [id, 1]);
    await house.admin.query(
      `INSERT INTO limit_hits SELECT $1, current_date - n, 'merchant', 'x', 'hard', 1 FROM unnest(ARRAY[399, 402, 500]) AS n`,
      [id],
    );
    // The days and the hits that are over 400 days old; the minutes hold something.
    const [{ days } = {}] = await rowsOf(
      `SELECT count(*)::int AS days FROM counters WHERE merchant_id = '${id}' AND period = 'day'`,
    );
    expect(await sweep()).toBe(Number(days) + 2);
    expect(await rowsOf(`SELECT count(*)::int AS n FROM limit_hits WHERE merchant_id = '${id}'`)).toEqual([
      { n: 1 },
    ]);
    await house.admin.query(holding, [id, -1]);
    expect(await Promise.all([sweep(), sweep(), sweep()])).toContain(0);
    await sweep();
    expect(await rowsOf(minutes)).toEqual([{ n: 0 }]);
    expect(await differences(merchant)).toEqual([]);
    expect(await rowsOf(`SELECT period FROM counters WHERE merchant_id = '${id}' ORDER BY 1`)).toEqual([
      { period: 'month' },
      { period: 'total' },
    ]);
  });

  test('of a retired month vanish with their opening balances', async () => {
    const merchant = await oldMerchant(monthAgo(12));
    await store.retire(ADMIN, monthAgo(12));
    const back = async (table: string) =>
      house.admin.query(
        `UPDATE ${table} SET starts_at = starts_at - interval '100 days' WHERE merchant_id = $1 AND period = 'day'`,
        [merchant.id],
      );
    await back('counters');
    await back('counter_openings');
    expect(await differences(merchant)).toEqual([]);
    expect(await sweep()).toBeGreaterThan(0);
    expect(await differences(merchant)).toEqual([]);
    expect(
      await rowsOf(
        `SELECT DISTINCT period FROM counter_openings WHERE merchant_id = '${merchant.id}' ORDER BY 1`,
      ),
    ).toEqual([{ period: 'month' }, { period: 'total' }]);
  });

  test('of a month that is older than 400 days are gone, or go, as it is retired', async () => {
    const merchant = await oldMerchant(monthAgo(16));
    await store.retire(ADMIN, monthAgo(16));
    expect(await differences(merchant)).toEqual([]);
    await sweep();
    expect(await differences(merchant)).toEqual([]);
  });

  test('are found by an index', async () => {
    await house.admin.query(
      `INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at) SELECT 'merchant-0001', 'merchant', '', 'minute', now() - make_interval(mins => n) FROM generate_series(1, 1400) n`,
    );
    await house.admin.query('ANALYZE counters');
    for (const period of ['minute', 'day']) {
      const plan = await rowsOf(
        `EXPLAIN SELECT * FROM counters k WHERE k.period = '${period}' AND k.starts_at < counter_cutoff('${period}', now() - interval '1 minute') AND k.in_flight = 0 ORDER BY k.starts_at LIMIT 500`,
      );
      expect(JSON.stringify(plan)).toMatch(new RegExp(`Index Scan (using|on) counters_${period}s`));
    }
  });
});

describe('npm run retention', () => {
  const command = (...args: string[]) =>
    runCommand('scripts/retention.ts', args, { env: { DATABASE_ADMIN_URL: adminUrl } });

  test('explains itself, and lists all that is wrong', async () => {
    expect(await command('--help')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('--keep-months N'),
    });
    const bad = await runCommand('scripts/retention.ts', ['--keep-months', '1', '--drop'], {
      env: { DATABASE_ADMIN_URL: '' },
    });
    expect(bad).toMatchObject({ code: 2, stdout: '' });
    for (const word of ['--drop', 'DATABASE_ADMIN_URL', '--keep-months']) expect(bad.stderr).toContain(word);
  });

  test('says what it would do and does nothing; does it with --apply; a second time there is nothing to do', async () => {
    const [far, near] = [monthAgo(30), monthAgo(28)];
    const gone = await oldMerchant(far);
    const stays = await house.newMerchant();
    await house.make(stays, [{ intent: {}, outcome: { state: 'unknown', reason: 'x', upstream: {} } }]);
    await age(stays, near);
    const state = () =>
      rowsOf(
        `SELECT (SELECT count(*) FROM audit_events), (SELECT count(*) FROM calls), (SELECT count(*) FROM usage_openings)`,
      );
    const before = await state();
    const dry = await command('--keep-months', '25');
    expect(dry).toMatchObject({ code: 1, stderr: '' });
    expect(dry.stdout).toMatch(
      new RegExp(
        `^${far.slice(0, 7)}  \\d+ calls  \\d+\\.\\d MiB: would go\n${near.slice(0, 7)}  1 calls  .*: stays, 0 held and 1 unknown calls are not resolved\nNothing was done`,
      ),
    );
    expect(await state()).toEqual(before);
    const done = await command('--keep-months', '25', '--apply');
    expect(done).toMatchObject({ code: 1, stderr: '' });
    expect(done.stdout).toContain('went to the archive, 1 merchants');
    expect(done.stdout).toContain(
      `--table=archive.${partitionOf(far)} --file=${partitionOf(far)}.dump\n  DROP TABLE archive.${partitionOf(far)};`,
    );
    expect(await differences(gone)).toEqual([]);
    expect((await command('--keep-months', '25', '--apply')).stdout).not.toContain('archive');
    expect(await command('--keep-months', '29')).toMatchObject({
      code: 0,
      stdout: 'No month is that old.\n',
    });
  });

  test('another login is refused', async () => {
    expect(
      await runCommand('scripts/retention.ts', ['--keep-months', '2', '--apply'], {
        env: { DATABASE_ADMIN_URL: house.url },
      }),
    ).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('42501'),
    });
  });
});
