import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import pg from 'pg';
import type { ApiKeyId, CallId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import type { CallOutcome } from '../../src/domain/usage.ts';
import type { CallIntent } from '../../src/ledger/call-intent.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { Ledger } from '../../src/ledger/ledger.ts';
import { sweepOverdueCalls } from '../../src/ledger/sweeper.ts';
import { UsageStore } from '../../src/ledger/usage-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';

const KEY = 'K00000000000' as ApiKeyId;
const CREDENTIAL = `cred_${'0'.repeat(22)}`;

let database: TestDatabase & AsyncDisposable;
let admin: pg.Client;
let connection: Database;
let store: LedgerStore;
let merchants = 0;

beforeAll(async () => {
  database = await newTestDatabase();
  admin = new pg.Client({ connectionString: database.adminUrl });
  await admin.connect();
  connection = new Database({
    url: new Secret(database.url),
    connectionsMax: 10,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  store = new LedgerStore(connection);
});
afterAll(async () => {
  await connection[Symbol.asyncDispose]();
  await admin.end();
  await database[Symbol.asyncDispose]();
});

/** A merchant with a live API key and a live credential; everything allowed. */
async function newMerchant(): Promise<{ merchantId: MerchantId; keyId: ApiKeyId; credentialId: string }> {
  merchants += 1;
  const merchantId = `merchant-${String(merchants)}` as MerchantId;
  const keyId = `${KEY.slice(0, 12 - String(merchants).length)}${String(merchants)}` as ApiKeyId;
  await admin.query(`
    INSERT INTO merchants (id, name, direct_allowed, service_defaults_allowed) VALUES ('${merchantId}', 'x', true, true);
    INSERT INTO api_keys (merchant_id, id, name, environment, secret_hash, pepper_version, scopes, created_by, expires_at)
      VALUES ('${merchantId}', '${keyId}', 'x', 'test', decode(repeat('00', 32), 'hex'), 1, '{}', 'x', now() + interval '1 day');
    INSERT INTO credentials (merchant_id, id, name, kind, region, key_hint, current_version, created_by) VALUES ('${merchantId}', '${CREDENTIAL}', 'x', 'access-key', 'us-east-1', 'x', 1, 'x');
    INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
      VALUES ('${merchantId}', '${CREDENTIAL}', 1, 'current', 'x', 'x', 'x', 'x');
    SELECT audit_append('${merchantId}', 'x', 'merchant.created', 'x', 'allowed', 'x', '{}');`);
  return { merchantId, keyId, credentialId: CREDENTIAL };
}

function intent(change: Partial<Record<keyof CallIntent, unknown>> = {}): CallIntent {
  return {
    operation: 'converse',
    modelId: 'm',
    region: 'us-east-1',
    source: 'service-default',
    subject: 'x',
    requestId: 'r',
    deadlineSeconds: 60,
    ...change,
  } as CallIntent;
}

const settled = (input: number, output: number): CallOutcome => ({
  state: 'settled',
  usage: { tokens: { ...NO_TOKENS, input, output }, provenance: 'body' },
  upstream: { latencyMs: 5 },
});
const voided: CallOutcome = { state: 'void', reason: 'x', upstream: {} };
const unknown: CallOutcome = { state: 'unknown', reason: 'x', upstream: {} };

/** The day's sums must be those of the rows, always. */
async function differences(merchantId: string): Promise<unknown[]> {
  const { rows } = await admin.query(
    `SELECT settled, voided, unknown, input, output FROM
      (SELECT count(*) FILTER (WHERE state = 'settled') AS settled, count(*) FILTER (WHERE state = 'void') AS voided, count(*) FILTER (WHERE state = 'unknown') AS unknown,
        coalesce(sum(input_tokens), 0) AS input, coalesce(sum(output_tokens), 0) AS output FROM calls WHERE merchant_id = $1) AS rows
     EXCEPT SELECT coalesce(sum(settled), 0), coalesce(sum(voided), 0), coalesce(sum(unknown), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0) FROM usage_days WHERE merchant_id = $1`,
    [merchantId],
  );
  return rows;
}

describe('states', () => {
  const outcomes: Record<string, CallOutcome> = { settled: settled(3, 4), void: voided, unknown };

  test('move forward only, whatever is tried in whatever order, and the sums follow', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('settled', 'void', 'unknown'), { minLength: 1, maxLength: 6 }),
        async (attempts) => {
          const { merchantId } = await newMerchant();
          const { id } = await store.open(merchantId, intent());
          let expected = 'held';
          for (const attempt of attempts) {
            const legal = expected === 'held' || (expected === 'unknown' && attempt !== 'unknown');
            expect(await store.resolve(merchantId, id as CallId, outcomes[attempt] as CallOutcome)).toBe(
              legal,
            );
            if (legal) expected = attempt;
          }
          const { rows } = await admin.query('SELECT state FROM calls WHERE merchant_id = $1', [merchantId]);
          expect(rows).toEqual([{ state: expected }]);
          expect(await differences(merchantId)).toEqual([]);
        },
      ),
      { numRuns: 25 },
    );
  });

  test('of twenty racers one wins, and it counts once', async () => {
    const { merchantId } = await newMerchant();
    const { id } = await store.open(merchantId, intent());
    const wins = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        store.resolve(merchantId, id as CallId, index % 2 === 0 ? settled(index, 1) : voided),
      ),
    );
    expect(wins.filter(Boolean)).toHaveLength(1);
    expect(await differences(merchantId)).toEqual([]);
  });

  test("another merchant's call cannot be resolved", async () => {
    const [mine, theirs] = [await newMerchant(), await newMerchant()];
    const { id } = await store.open(theirs.merchantId, intent());
    expect(await store.resolve(mine.merchantId, id as CallId, voided)).toBe(false);
  });
});

describe('admission', () => {
  test.each<[string, string, Partial<CallIntent>]>([
    ['a suspended merchant', `UPDATE merchants SET status = 'suspended' WHERE id = $1`, {}],
    ['a revoked key', `UPDATE api_keys SET revoked_at = now() WHERE merchant_id = $1`, {}],
    ['an expired key', `UPDATE api_keys SET expires_at = now() WHERE merchant_id = $1`, {}],
    [
      'a deleted credential',
      `UPDATE credentials SET state = 'deleted' WHERE merchant_id = $1`,
      { source: 'stored' },
    ],
    [
      'a version that is not current',
      `UPDATE credential_versions SET state = 'previous' WHERE merchant_id = $1`,
      { source: 'stored' },
    ],
    [
      'direct keys that are not allowed',
      `UPDATE merchants SET direct_allowed = false WHERE id = $1`,
      { source: 'direct' },
    ],
    [
      'a session where direct keys are not allowed',
      `UPDATE merchants SET direct_allowed = false WHERE id = $1`,
      { source: 'session' },
    ],
    [
      'service defaults that are not allowed',
      `UPDATE merchants SET service_defaults_allowed = false WHERE id = $1`,
      { source: 'service-default' },
    ],
  ])('%s: refused, and no row', async (_name, change, extra) => {
    const { merchantId, keyId, credentialId } = await newMerchant();
    const call = intent({
      apiKeyId: keyId,
      ...(extra.source === 'stored' && { credentialId, credentialVersion: 1 }),
      ...extra,
    });
    expect((await store.open(merchantId, call)).verdict).toBe('admitted');
    await admin.query(change, [merchantId]);
    expect((await store.open(merchantId, call)).verdict).not.toBe('admitted');
    const { rows } = await admin.query('SELECT count(*)::int AS n FROM calls WHERE merchant_id = $1', [
      merchantId,
    ]);
    expect(rows).toEqual([{ n: 1 }]);
  });

  test('a merchant that does not exist, and a key of another merchant', async () => {
    const [mine, theirs] = [await newMerchant(), await newMerchant()];
    expect((await store.open('nobody-here' as MerchantId, intent())).verdict).toBe('merchant');
    expect((await store.open(mine.merchantId, intent({ apiKeyId: theirs.keyId }))).verdict).toBe('api_key');
  });

  test('no call starts after a revocation was acknowledged: 40 rounds of calls racing it', async () => {
    const { ApiKeyStore } = await import('../../src/auth/api-key-store.ts');
    const keys = new ApiKeyStore(connection);
    for (let round = 0; round < 40; round += 1) {
      const { merchantId, keyId } = await newMerchant();
      let acknowledged = false;
      const late: string[] = [];
      const calls = Array.from({ length: 6 }, async () => {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 12));
        const startedAfter = acknowledged;
        const { verdict } = await store.open(merchantId, intent({ apiKeyId: keyId }));
        if (startedAfter && verdict === 'admitted') late.push(verdict);
      });
      const revoked = keys
        .revoke({ subject: 'x', requestId: 'r' }, merchantId, keyId)
        .then(() => (acknowledged = true));
      await Promise.all([...calls, revoked]);
      expect(late).toEqual([]);
      // And in the order of the chain, which is the order of the commits: nothing is admitted behind the revocation.
      const { rows } = await admin.query<{ action: string }>(
        'SELECT action FROM audit_events WHERE merchant_id = $1 ORDER BY seq',
        [merchantId],
      );
      const actions = rows.map((row) => row.action);
      expect(actions.slice(actions.indexOf('token.revoked'))).not.toContain('call.admitted');
    }
  });
});

describe('what is left behind', () => {
  test('a call that leaves its scope without an outcome is unknown', async () => {
    const { merchantId } = await newMerchant();
    const ledger = new Ledger(store, { settleRetryDelaysMs: [], onUnsettled: () => undefined });
    {
      await using _call = await ledger.open(merchantId, intent());
    }
    expect((await new UsageStore(connection).records(merchantId, 1)).items[0]).toMatchObject({
      state: 'unknown',
    });
  });

  test('three replicas that sweep at once resolve each overdue call once; what is not due stays held', async () => {
    const { merchantId } = await newMerchant();
    for (let index = 0; index < 12; index += 1)
      await store.open(merchantId, intent({ deadlineSeconds: index < 10 ? -1 : 60 }));
    await Promise.all([sweepOverdueCalls(store), sweepOverdueCalls(store), sweepOverdueCalls(store)]);
    const { rows } = await admin.query(
      'SELECT state, count(*)::int AS n FROM calls WHERE merchant_id = $1 GROUP BY 1 ORDER BY 1',
      [merchantId],
    );
    expect(rows).toEqual([
      { state: 'held', n: 2 },
      { state: 'unknown', n: 10 },
    ]);
    expect(await differences(merchantId)).toEqual([]);
  });

  test('a settlement outlives connections that Postgres cuts, and counts once', async () => {
    const { merchantId } = await newMerchant();
    const unsettled: unknown[] = [];
    const ledger = new Ledger(store, {
      settleRetryDelaysMs: [20, 50, 100, 200],
      onUnsettled: (id) => unsettled.push(id),
    });
    const calls = await Promise.all(Array.from({ length: 10 }, () => ledger.open(merchantId, intent())));
    const cut = admin.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'merchant_bedrock_service' AND datname = current_database()`,
    );
    await Promise.all([cut, ...calls.map((call) => call.resolve(settled(1, 2)))]);
    expect(unsettled).toEqual([]);
    const { rows } = await admin.query(
      'SELECT state, count(*)::int AS n FROM calls WHERE merchant_id = $1 GROUP BY 1',
      [merchantId],
    );
    expect(rows).toEqual([{ state: 'settled', n: 10 }]);
    expect(await differences(merchantId)).toEqual([]);
  });
});

describe('reports', () => {
  test('pages give every record once, newest first, while new ones arrive', async () => {
    const { merchantId } = await newMerchant();
    const usage = new UsageStore(connection);
    const ids: string[] = [];
    for (let index = 0; index < 25; index += 1)
      ids.push((await store.open(merchantId, intent())).id as string);
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await usage.records(merchantId, 7, cursor);
      seen.push(...page.items.map((record) => record.id));
      cursor = page.nextCursor;
      await store.open(merchantId, intent());
    } while (cursor !== undefined);
    // Ids are in the order of time to the millisecond.
    expect(seen).toEqual([...ids].sort().reverse());
  });

  test('groups add up to the whole, and the operator sees the same', async () => {
    const { merchantId, keyId } = await newMerchant();
    for (let index = 0; index < 8; index += 1) {
      const { id } = await store.open(
        merchantId,
        intent({ modelId: `m${String(index % 3)}`, ...(index % 2 === 0 && { apiKeyId: keyId }) }),
      );
      await store.resolve(merchantId, id as CallId, index === 7 ? voided : settled(index, 10));
    }
    const usage = new UsageStore(connection);
    const report = await usage.report(merchantId, 'day', ['model', 'apiKey', 'day']);
    expect(report).toMatchObject({
      calls: { settled: 7, void: 1, unknown: 0 },
      tokens: { input: 21, output: 70, total: 91 },
    });
    expect(report.groups.reduce((sum, group) => sum + group.tokens.total, 0)).toBe(91);
    expect(new Set(report.groups.map((group) => group.key.apiKey))).toEqual(new Set([keyId, null]));
    const all = await usage.byMerchant('day', 200);
    expect(all.items.find((item) => item.merchantId === merchantId)).toMatchObject({ tokens: { total: 91 } });
  });
});

test('partitions: rows land in their month, and making them is safe to repeat and to race', async () => {
  const { merchantId } = await newMerchant();
  await store.open(merchantId, intent());
  const { rows } = await admin.query<{ partition: string; month: string }>(
    `SELECT tableoid::regclass::text AS partition, to_char(created_at AT TIME ZONE 'UTC', '"calls_"YYYY_MM') AS month FROM calls WHERE merchant_id = $1`,
    [merchantId],
  );
  expect(rows).toEqual([{ partition: rows[0]?.month, month: rows[0]?.month }]);
  await Promise.all([store.makePartitions(15), store.makePartitions(15), store.makePartitions(15)]);
  const { rows: count } = await admin.query(
    `SELECT count(*)::int AS n FROM pg_inherits WHERE inhparent = 'calls'::regclass`,
  );
  expect(count).toEqual([{ n: 16 }]);
});
