import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import pg from 'pg';
import { ApiKeyStore } from '../../src/auth/api-key-store.ts';
import { CredentialStore } from '../../src/credentials/credential-store.ts';
import type { ApiKeyId, CallId, CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import type { CallOutcome } from '../../src/domain/usage.ts';
import type { CallIntent } from '../../src/ledger/call-intent.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { Ledger } from '../../src/ledger/ledger.ts';
import { UsageStore } from '../../src/ledger/usage-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { until } from '../support/until.ts';

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
  store = new LedgerStore(connection, { processId: randomUUID() });
  // Nobody says every few seconds that it lives, as a service does; a sweep must not take it for dead.
  await store.keepAlive(3_600);
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

async function revisionOf(merchantId: string): Promise<number> {
  const { rows } = await admin.query('SELECT revision::int AS revision FROM merchants WHERE id = $1', [
    merchantId,
  ]);
  return (rows as { revision: number }[])[0]?.revision ?? 0;
}

/** Admits a call, and fails where it is not admitted. */
async function admit(merchantId: MerchantId, call: CallIntent): Promise<CallId> {
  const answer = await store.hold(merchantId, call);
  if (answer.verdict !== 'admitted') throw new Error(`not admitted: ${answer.verdict}`);
  return answer.id;
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
    merchantRevision: 1,
    bound: { inputTokens: 0, outputTokens: 0, outputTokensMost: 0, clampable: false, tier: 'standard' },
    ...change,
  } as CallIntent;
}

const settled = (input: number, output: number): CallOutcome => ({
  state: 'settled',
  usage: {
    tokens: { ...NO_TOKENS, input, output, cacheRead: 3, cacheWrite5m: 5, cacheWrite1h: 7 },
    provenance: 'body',
  },
  upstream: { latencyMs: input + 0.4 },
});
const voided: CallOutcome = { state: 'void', reason: 'x', upstream: {} };
const unknown: CallOutcome = { state: 'unknown', reason: 'x', upstream: {} };

/** Every counter and every sum must be that of the rows, always. What differs. */
async function differences(merchantId: string): Promise<unknown[]> {
  await admin.query(`SELECT set_config('app.merchant_id', $1, false)`, [merchantId]);
  return (await admin.query('SELECT * FROM ledger_differences()')).rows;
}

describe('states', () => {
  const outcomes: Record<string, CallOutcome> = { settled: settled(3, 4), void: voided, unknown };

  test('move forward only, whatever is tried in whatever order, and the sums follow every step', async () => {
    const steps = fc.array(
      fc.record({ call: fc.nat(2), to: fc.constantFrom('settled', 'void', 'unknown') }),
      { minLength: 1, maxLength: 10 },
    );
    await fc.assert(
      fc.asyncProperty(steps, async (tried) => {
        const { merchantId, keyId } = await newMerchant();
        const ids = await Promise.all(
          [{}, { apiKeyId: keyId }, { modelId: 'other' }].map(
            async (extra) => await admit(merchantId, intent(extra)),
          ),
        );
        const states = ['held', 'held', 'held'];
        for (const { call, to } of tried) {
          const from = states[call];
          const legal = from === 'held' || (from === 'unknown' && to !== 'unknown');
          expect(await store.settle(merchantId, ids[call] as CallId, outcomes[to] as CallOutcome)).toBe(
            legal,
          );
          if (legal) states[call] = to;
          expect(await differences(merchantId)).toEqual([]);
        }
        const { rows } = await admin.query<{ id: string; state: string }>(
          'SELECT id, state FROM calls WHERE merchant_id = $1',
          [merchantId],
        );
        expect(ids.map((id) => rows.find((row) => row.id === id)?.state)).toEqual(states);
      }),
      { numRuns: 20 },
    );
  });

  test('of twenty racers one wins, and it counts once', async () => {
    const { merchantId } = await newMerchant();
    const id = await admit(merchantId, intent());
    const wins = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        store.settle(merchantId, id, index % 2 === 0 ? settled(index, 1) : voided),
      ),
    );
    expect(wins.filter(Boolean)).toHaveLength(1);
    expect(await differences(merchantId)).toEqual([]);
  });

  test('of twenty racers for an unknown call one wins, and it stops counting as unknown', async () => {
    const { merchantId } = await newMerchant();
    const id = await admit(merchantId, intent());
    expect(await store.settle(merchantId, id, unknown)).toBe(true);
    const wins = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        store.settle(merchantId, id, [settled(index, 1), voided, unknown][index % 3] as CallOutcome),
      ),
    );
    expect(wins.filter(Boolean)).toHaveLength(1);
    expect(await differences(merchantId)).toEqual([]);
    const { rows } = await admin.query(
      'SELECT sum(unknown)::int AS n FROM usage_days WHERE merchant_id = $1',
      [merchantId],
    );
    expect(rows).toEqual([{ n: 0 }]);
  });

  test("another merchant's call cannot be resolved", async () => {
    const [mine, theirs] = [await newMerchant(), await newMerchant()];
    const id = await admit(theirs.merchantId, intent());
    expect(await store.settle(mine.merchantId, id, voided)).toBe(false);
  });
});

describe('admission', () => {
  test.each<[string, string, Partial<CallIntent>, string]>([
    ['a suspended merchant', `UPDATE merchants SET status = 'suspended' WHERE id = $1`, {}, 'merchant'],
    ['a closed merchant', `UPDATE merchants SET status = 'closed' WHERE id = $1`, {}, 'merchant'],
    ['a revoked key', `UPDATE api_keys SET revoked_at = now() WHERE merchant_id = $1`, {}, 'api_key'],
    ['an expired key', `UPDATE api_keys SET expires_at = now() WHERE merchant_id = $1`, {}, 'api_key'],
    [
      'a deleted credential',
      `UPDATE credentials SET state = 'deleted' WHERE merchant_id = $1`,
      { source: 'stored' },
      'credential',
    ],
    [
      'a version that is not current',
      `UPDATE credential_versions SET state = 'previous', overlap_until = now() - interval '1 second' WHERE merchant_id = $1`,
      { source: 'stored' },
      'credential',
    ],
    [
      'direct keys that are not allowed',
      `UPDATE merchants SET direct_allowed = false WHERE id = $1`,
      { source: 'direct' },
      'source',
    ],
    [
      'a session where direct keys are not allowed',
      `UPDATE merchants SET direct_allowed = false WHERE id = $1`,
      { source: 'session' },
      'source',
    ],
    [
      'service defaults that are not allowed',
      `UPDATE merchants SET service_defaults_allowed = false WHERE id = $1`,
      { source: 'service-default' },
      'source',
    ],
  ])('%s: refused, and no row', async (_name, change, extra, verdict) => {
    const { merchantId, keyId, credentialId } = await newMerchant();
    const call = intent({
      apiKeyId: keyId,
      ...(extra.source === 'stored' && { credentialId, credentialVersion: 1 }),
      ...extra,
    });
    expect((await store.hold(merchantId, call)).verdict).toBe('admitted');
    await admin.query(change, [merchantId]);
    const revised = { ...call, merchantRevision: await revisionOf(merchantId) };
    expect(await store.hold(merchantId, revised)).toEqual({ verdict });
    const { rows } = await admin.query('SELECT count(*)::int AS n FROM calls WHERE merchant_id = $1', [
      merchantId,
    ]);
    expect(rows).toEqual([{ n: 1 }]);
  });

  test('a merchant that does not exist, and a key of another merchant', async () => {
    const [mine, theirs] = [await newMerchant(), await newMerchant()];
    expect((await store.hold('nobody-here' as MerchantId, intent())).verdict).toBe('merchant');
    expect((await store.hold(mine.merchantId, intent({ apiKeyId: theirs.keyId }))).verdict).toBe('api_key');
  });

  test('no call starts after a revocation was acknowledged: 300 pairs of a call and a revocation or deletion', async () => {
    const actor = { subject: 'x', requestId: 'r' };
    const keys = new ApiKeyStore(connection);
    const credentials = new CredentialStore(connection);
    const race = async (index: number): Promise<'before' | 'refused'> => {
      const { merchantId, keyId, credentialId } = await newMerchant();
      const stored = { source: 'stored', credentialId, credentialVersion: 1, apiKeyId: keyId };
      const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
      let acknowledged = false;
      const end = async () => {
        await pause(Math.random() * 3);
        await (index % 2 === 0
          ? keys.revoke(actor, merchantId, keyId)
          : credentials.delete(merchantId, actor, credentialId as CredentialId));
        acknowledged = true;
      };
      const call = async () => {
        await pause(Math.random() * 6);
        const late = acknowledged;
        return { late, verdict: (await store.hold(merchantId, intent(stored))).verdict };
      };
      const [{ late, verdict }] = await Promise.all([call(), end()]);
      const ended = index % 2 === 0 ? 'api_key' : 'credential';
      expect(late ? [ended] : ['admitted', ended]).toContain(verdict);
      expect((await store.hold(merchantId, intent(stored))).verdict).toBe(ended);
      // The chain is in the order of the commits: nothing is admitted behind the end, and no row is there without its event.
      const { rows } = await admin.query<{ action: string }>(
        'SELECT action FROM audit_events WHERE merchant_id = $1 AND seq > 1 ORDER BY seq',
        [merchantId],
      );
      const last = index % 2 === 0 ? 'token.revoked' : 'credential.deleted';
      expect(rows.map((row) => row.action)).toEqual(
        verdict === 'admitted' ? ['call.admitted', last] : [last],
      );
      return verdict === 'admitted' ? 'before' : 'refused';
    };
    const seen = new Set<string>();
    for (let index = 0; index < 300; index += 10)
      for (const result of await Promise.all(Array.from({ length: 10 }, (_, at) => race(index + at))))
        seen.add(result);
    expect(seen).toEqual(new Set(['before', 'refused']));
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
      await store.hold(merchantId, intent({ deadlineSeconds: index < 10 ? -1 : 60 }));
    await Promise.all([store.sweep(1_000), store.sweep(1_000), store.sweep(1_000)]);
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

  test('what was admitted without an answer is void: of the process itself, and also what a sweep took for unknown', async () => {
    const { merchantId } = await newMerchant();
    const other = new LedgerStore(connection, { processId: randomUUID() });
    const admit = async (process: LedgerStore, requestId: string, deadlineSeconds: number) => {
      const held = await process.hold(merchantId, intent({ requestId, deadlineSeconds }));
      return held.verdict === 'admitted' ? held.id : held.verdict;
    };
    const lost = [await admit(store, 'lost', -1), await admit(store, 'lost too', 60)];
    await admit(other, 'lost', 60);
    await admit(store, 'running', 60);
    await store.sweep(1_000);
    const asked = ['lost', 'lost too', 'never came'].map((requestId) => ({ merchantId, requestId }));
    expect(
      await store.voidUnsent([...asked, { merchantId: 'nobody' as MerchantId, requestId: 'lost' }]),
    ).toBe(2);
    expect(await store.voidUnsent(asked)).toBe(0);
    const { rows } = await admin.query<{ id: string; reason: string }>(
      `SELECT id, reason FROM calls WHERE merchant_id = $1 AND state = 'void' ORDER BY id`,
      [merchantId],
    );
    expect(rows).toEqual(lost.map((id) => ({ id, reason: 'never sent' })));
    expect(await differences(merchantId)).toEqual([]);
  });

  test('a settlement outlives connections that Postgres cuts, and counts once', async () => {
    const { merchantId } = await newMerchant();
    const unsettled: unknown[] = [];
    const attempts: string[] = [];
    const counted = Object.assign(Object.create(store) as LedgerStore, {
      hold: (...args: Parameters<LedgerStore['hold']>) => store.hold(...args),
      settle: (...args: Parameters<LedgerStore['settle']>) => {
        attempts.push(args[1]);
        return store.settle(...args);
      },
    });
    const ledger = new Ledger(counted, {
      settleRetryDelaysMs: [20, 50, 100, 200],
      onUnsettled: (id) => unsettled.push(id),
    });
    const calls = await Promise.all(Array.from({ length: 8 }, () => ledger.open(merchantId, intent())));
    // All settlements wait for a lock, so that the cut meets every one of them at work.
    await admin.query('BEGIN');
    await admin.query('SELECT 1 FROM audit_heads WHERE merchant_id = $1 FOR UPDATE', [merchantId]);
    const settling = Promise.all(calls.map((call) => call.resolve(settled(1, 2))));
    const waiting = `FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
    await until('they wait', async () => {
      const { rows } = await admin.query(`SELECT pg_stat_clear_snapshot(), pid ${waiting}`);
      return rows.length > 0;
    });
    await admin.query(`SELECT pg_terminate_backend(pid) ${waiting}`);
    await admin.query('COMMIT');
    await settling;
    expect(unsettled).toEqual([]);
    expect(attempts.length).toBeGreaterThanOrEqual(16);
    const { rows } = await admin.query(
      'SELECT state, count(*)::int AS n FROM calls WHERE merchant_id = $1 GROUP BY 1',
      [merchantId],
    );
    expect(rows).toEqual([{ state: 'settled', n: 8 }]);
    expect(await differences(merchantId)).toEqual([]);
  });

  test('an answer of Postgres that is lost after the commit does not settle twice', async () => {
    const { merchantId } = await newMerchant();
    const won: boolean[] = [];
    const forgetful = Object.assign(Object.create(store) as LedgerStore, {
      hold: (...args: Parameters<LedgerStore['hold']>) => store.hold(...args),
      settle: async (...args: Parameters<LedgerStore['settle']>) => {
        won.push(await store.settle(...args));
        if (won.length === 1) throw new Error('the connection was cut after COMMIT');
        return won.at(-1);
      },
    });
    const ledger = new Ledger(forgetful, { settleRetryDelaysMs: [1], onUnsettled: () => undefined });
    await (await ledger.open(merchantId, intent())).resolve(settled(1, 2));
    expect(won).toEqual([true, false]);
    expect(await differences(merchantId)).toEqual([]);
  });

  test('a settlement that cannot be written is told of, never thrown, and stays held for the sweeper', async () => {
    const { merchantId } = await newMerchant();
    const unsettled: string[] = [];
    const broken = Object.assign(Object.create(store) as LedgerStore, {
      hold: (...args: Parameters<LedgerStore['hold']>) => store.hold(...args),
      settle: () => Promise.reject(new Error('no Postgres')),
    });
    const ledger = new Ledger(broken, {
      settleRetryDelaysMs: [1, 1],
      onUnsettled: (id) => unsettled.push(id),
    });
    const call = await ledger.open(merchantId, intent({ deadlineSeconds: -1 }));
    await call.resolve(settled(1, 2));
    expect(unsettled).toEqual([call.id]);
    await store.sweep(1_000);
    expect((await new UsageStore(connection).records(merchantId, 1)).items[0]).toMatchObject({
      id: call.id,
      state: 'unknown',
      reason: 'no outcome: process gone or deadline passed',
    });
  });
});

describe('reports', () => {
  test('pages give every record once, newest first, while new ones arrive', async () => {
    const { merchantId } = await newMerchant();
    const usage = new UsageStore(connection);
    const ids: string[] = [];
    for (let index = 0; index < 25; index += 1) ids.push(await admit(merchantId, intent()));
    const seen: string[] = [];
    const arriving: Promise<unknown>[] = [];
    let cursor: string | undefined;
    do {
      const page = await usage.records(merchantId, 7, cursor);
      seen.push(...page.items.map((record) => record.id));
      cursor = page.nextCursor;
      // Three more in front, while the next page is being read.
      arriving.push(...Array.from({ length: 3 }, () => store.hold(merchantId, intent())));
    } while (cursor !== undefined);
    await Promise.all(arriving);
    // Ids are in the order of time to the millisecond.
    expect(seen).toEqual([...ids].sort().reverse());
  });

  test('groups add up to the whole, and the operator sees the same', async () => {
    const { merchantId, keyId } = await newMerchant();
    for (let index = 0; index < 8; index += 1) {
      const id = await admit(
        merchantId,
        intent({ modelId: `m${String(index % 3)}`, ...(index % 2 === 0 && { apiKeyId: keyId }) }),
      );
      await store.settle(merchantId, id, index === 7 ? voided : settled(index, 10));
    }
    const usage = new UsageStore(connection);
    const report = await usage.report(merchantId, 'day', ['model', 'apiKey', 'day']);
    expect(report).toMatchObject({
      calls: { settled: 7, void: 1, unknown: 0 },
      tokens: { input: 21, output: 70, total: 91 + 7 * 15 },
    });
    expect(report.groups.reduce((sum, group) => sum + group.tokens.total, 0)).toBe(91 + 7 * 15);
    expect(new Set(report.groups.map((group) => group.key.apiKey))).toEqual(new Set([keyId, null]));
    const all = await usage.byMerchant('day', 200);
    expect(all.items.find((item) => item.merchantId === merchantId)).toMatchObject({
      tokens: { total: 91 + 7 * 15 },
    });
  });
});

describe('partitions', () => {
  const monthOf = `to_char(created_at AT TIME ZONE 'UTC', '"calls_"YYYY_MM')`;

  test('rows land in their month, to the millisecond, and beyond the last one they are refused', async () => {
    const { merchantId } = await newMerchant();
    await store.hold(merchantId, intent());
    // The first and the last millisecond of each of the twelve months that are there.
    await admin.query(
      `INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline)
       SELECT $1, uuid_v7_floor(at), 'held', 'converse', 'm', 'us-east-1', 'direct', 'x', 'r', at, at + interval '1 hour'
       FROM generate_series(1, 12) n, LATERAL (SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n)) AT TIME ZONE 'UTC' AS start) s,
         LATERAL (VALUES (start), (start - interval '1 millisecond')) AS edge (at)`,
      [merchantId],
    );
    const { rows } = await admin.query(
      `SELECT count(*)::int AS n, count(*) FILTER (WHERE tableoid::regclass::text = ${monthOf})::int AS home FROM calls WHERE merchant_id = $1`,
      [merchantId],
    );
    expect(rows).toEqual([{ n: 25, home: 25 }]);
    await expect(
      admin.query(
        `INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline)
         VALUES ($1, uuid_v7_floor(now() + interval '3 years'), 'held', 'converse', 'm', 'us-east-1', 'direct', 'x', 'r', now(), now())`,
        [merchantId],
      ),
    ).rejects.toThrow(/no partition/);
  });

  test('making them is safe to repeat and to race', async () => {
    const count = async () =>
      (await admin.query(`SELECT count(*)::int AS n FROM pg_inherits WHERE inhparent = 'calls'::regclass`))
        .rows;
    await Promise.all(Array.from({ length: 8 }, () => store.makePartitions(15)));
    expect(await count()).toEqual([{ n: 16 }]);
    await store.makePartitions(15);
    expect(await count()).toEqual([{ n: 16 }]);
  });
});
