import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import type { CallId, MerchantId } from '../../src/domain/ids.ts';
import { AuditStore } from '../../src/audit/audit-store.ts';
import { Secret } from '../../src/domain/secret.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import type { CallIntent } from '../../src/ledger/call-intent.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { chains, compareAudit, differences, limitsPassed, readRows } from './books.ts';

const ACME = 'acme' as MerchantId;
const INTENT = {
  operation: 'converse',
  modelId: 'm',
  region: 'us-east-1',
  source: 'service-default',
  subject: 'x',
  requestId: 'r',
  deadlineSeconds: 60,
  merchantRevision: 1,
  bound: { inputTokens: 20, outputTokens: 20, outputTokensMost: 20, clampable: false, tier: 'standard' },
} as CallIntent;

let database: TestDatabase & AsyncDisposable;
let admin: pg.Pool;
let connection: Database;

beforeAll(async () => {
  database = await newTestDatabase();
  admin = new pg.Pool({ connectionString: database.adminUrl, max: 2 });
  connection = new Database({
    url: new Secret(database.url),
    connectionsMax: 2,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  await admin.query(`
    INSERT INTO merchants (id, name, direct_allowed, service_defaults_allowed) VALUES ('acme', 'x', true, true);
    SELECT audit_append('acme', 'x', 'merchant.created', 'x', 'allowed', 'x', '{}');`);
  const ledger = new LedgerStore(connection, { processId: '00000000-0000-7000-8000-000000000001' });
  const hold = async (): Promise<CallId> => {
    const answer = await ledger.hold(ACME, INTENT);
    if (answer.verdict !== 'admitted') throw new Error(answer.verdict);
    return answer.id;
  };
  await hold();
  const usage = { tokens: { ...NO_TOKENS, input: 3, output: 5 }, provenance: 'body' } as const;
  await ledger.settle(ACME, await hold(), { state: 'settled', usage, upstream: { latencyMs: 9 } });
  await ledger.settle(ACME, await hold(), { state: 'void', reason: 'x', upstream: {} });
  await ledger.settle(ACME, await hold(), { state: 'unknown', reason: 'x', upstream: {} });
});
afterAll(async () => {
  await connection[Symbol.asyncDispose]();
  await admin.end();
  await database[Symbol.asyncDispose]();
});

async function faults(): Promise<string[]> {
  return [
    ...compareAudit(await readRows(admin, [ACME])),
    ...(await differences(admin, [ACME])),
    ...(await chains(new AuditStore(connection), [ACME])),
    ...(await limitsPassed(admin, [ACME])),
  ];
}

/** Breaks the books without asking what guards them, looks, and mends them. */
async function faultsWhen(broken: string, mended: string): Promise<string[]> {
  // Triggers and foreign keys are off on this connection alone.
  const client = await admin.connect();
  try {
    await client.query(`SET session_replication_role = replica; ${broken}`);
    const found = await faults();
    await client.query(mended);
    return found;
  } finally {
    await client.query('RESET session_replication_role');
    client.release();
  }
}

test('rows are read with their state, numbers and audit events', async () => {
  const rows = await readRows(admin, [ACME]);
  expect(rows.map(({ state, actions }) => [state, ...actions])).toEqual([
    ['held', 'call.admitted'],
    ['settled', 'call.admitted', 'call.settled'],
    ['void', 'call.admitted', 'call.void'],
    ['unknown', 'call.admitted', 'call.unknown'],
  ]);
  expect(rows[1]?.tokens).toEqual({ ...NO_TOKENS, input: 3, output: 5 });
  expect(await faults()).toEqual([]);
});

describe('what is wrong in the database is seen', () => {
  const counter = (set: string) =>
    `UPDATE counters SET ${set} WHERE merchant_id = 'acme' AND period = 'total'`;
  const call = (set: string, state: string) =>
    `UPDATE calls SET ${set} WHERE merchant_id = 'acme' AND state = '${state}'`;
  const settledEvents = `merchant_id = 'acme' AND action = 'call.settled'`;

  test.each<[string, string, string, RegExp]>([
    [
      'a counter one too high',
      counter('requests = requests + 1'),
      counter('requests = requests - 1'),
      /counter merchant/,
    ],
    [
      'a hold that was kept',
      counter('tokens_held = tokens_held + 40'),
      counter('tokens_held = tokens_held - 40'),
      /counter merchant/,
    ],
    [
      'a call that counts twice in the sums of the day',
      `UPDATE usage_days SET settled = settled + 1 WHERE merchant_id = 'acme'`,
      `UPDATE usage_days SET settled = settled - 1 WHERE merchant_id = 'acme'`,
      /usage /,
    ],
    [
      'a cost that its price does not give',
      call('cost_nano = 7', 'settled'),
      call('cost_nano = NULL', 'settled'),
      /cost /,
    ],
    [
      'a row with other numbers than were counted',
      call('output_tokens = output_tokens + 1', 'settled'),
      call('output_tokens = output_tokens - 1', 'settled'),
      /usage /,
    ],
    [
      'an audit event that was changed',
      `UPDATE audit_events SET actor = 'y' WHERE ${settledEvents}`,
      `UPDATE audit_events SET actor = 'x' WHERE ${settledEvents}`,
      /audit chain of acme is broken/,
    ],
    [
      'an audit event of another outcome',
      `UPDATE audit_events SET action = 'call.void' WHERE ${settledEvents}`,
      `UPDATE audit_events SET action = 'call.settled' WHERE merchant_id = 'acme' AND seq = (SELECT max(seq) FROM audit_events WHERE merchant_id = 'acme' AND action = 'call.void' AND resource IN (SELECT 'call/' || id FROM calls WHERE state = 'settled'))`,
      /is settled, its audit events are call\.admitted, call\.void/,
    ],
    [
      'more than a call was held at',
      counter('nano_overrun = 1'),
      counter('nano_overrun = 0'),
      /a limit is passed/,
    ],
    [
      'a merchant that was stopped',
      `UPDATE merchants SET status = 'suspended' WHERE id = 'acme'`,
      `UPDATE merchants SET status = 'active' WHERE id = 'acme'`,
      /was stopped: acme/,
    ],
    [
      'a database that no longer keeps limits',
      'ALTER TABLE counters RENAME CONSTRAINT tokens_within_limit TO gone',
      'ALTER TABLE counters RENAME CONSTRAINT gone TO tokens_within_limit',
      /does not keep tokens_within_limit/,
    ],
  ])('%s', async (_name, broken, mended, fault) => {
    expect((await faultsWhen(broken, mended)).join('\n')).toMatch(fault);
    expect(await faults()).toEqual([]);
  });
});
