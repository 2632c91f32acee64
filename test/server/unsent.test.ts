import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import pg from 'pg';
import { newTestDatabase } from '../support/database.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { converseBody, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { eventually, until } from '../support/until.ts';

// The answer of an admission is lost behind its commit: its caller is told 503, and nothing is sent.
const WIRE = '/model/anthropic.claude-3-5-haiku-20241022-v1:0/converse';

let database: TestDatabase & AsyncDisposable;
let proxy: FaultProxy;
let service: TestService;
let merchant: MerchantPerson;
let admin: pg.Client;
/** Looks: within a transaction pg_stat_activity stands still. */
let watcher: pg.Client;

beforeAll(async () => {
  database = await newTestDatabase();
  proxy = await FaultProxy.start();
  proxy.leadTo(database.url);
  const url = new URL(database.url);
  url.port = String(proxy.port);
  service = await startTestService({ DATABASE_URL: url.href, DATABASE_TIMEOUT_MS: '3000' }, database);
  merchant = await onboard(service, 'merchant-a');
  admin = new pg.Client({ connectionString: database.adminUrl });
  watcher = new pg.Client({ connectionString: database.adminUrl });
  await Promise.all([admin.connect(), watcher.connect()]);
  await merchant.post(WIRE, converseBody('warm'));
});
afterAll(async () => {
  await Promise.all([admin.end(), watcher.end()]);
  await service[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

interface Row {
  id: string;
  state: string;
  reason: string | null;
}

const newest = async () =>
  (await watcher.query<Row>('SELECT id, state, reason FROM calls ORDER BY created_at DESC, id DESC LIMIT 1'))
    .rows[0];

const holdWaits = async () =>
  (
    await watcher.query(
      `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%ledger_hold%'`,
    )
  ).rowCount === 1;

async function ask(key: string) {
  const response = await merchant.raw('POST', WIRE, converseBody('hello'), { 'idempotency-key': key });
  return { status: response.status, text: await response.text() };
}

test.each(['before', 'after'])('a call that is admitted %s its answer is lost is void soon', async (when) => {
  const key = randomUUID();
  const last = (await newest())?.id;
  await admin.query('BEGIN');
  await admin.query(`SELECT 1 FROM audit_heads WHERE merchant_id = 'merchant-a' FOR UPDATE`);
  const asking = ask(key);
  await until('the admission waits', holdWaits);
  await proxy.set({ kind: 'black hole' });
  const admitted = async () => {
    await admin.query('COMMIT');
    await until('it is admitted', async () => (await newest())?.id !== last);
  };
  if (when === 'before') await admitted();
  await proxy.set({ kind: 'open' });
  expect(await asking).toMatchObject({ status: 503 });
  if (when === 'after') await admitted();
  const lost = await newest();
  expect(lost).toMatchObject({ state: 'held' });
  expect((await ask(key)).status).toBe(429);

  const settled = await eventually(newest, (row) => row?.state !== 'held');
  expect(settled).toMatchObject({ id: lost?.id, state: 'void', reason: 'never sent' });
  expect(runtimeCalls(service)).toEqual([]);
  expect((await ask(key)).status).toBe(200);
  expect(runtimeCalls(service)).toHaveLength(1);
  const { rows } = await admin.query(
    `SELECT set_config('app.merchant_id', 'merchant-a', false), d.* FROM ledger_differences() AS d`,
  );
  expect(rows).toEqual([]);
});
