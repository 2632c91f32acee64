import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { diffPrices } from '../../src/ledger/price-diff.ts';
import { parsePriceFile } from '../../src/ledger/price-file.ts';
import type { Price } from '../../src/ledger/price.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import { onServer } from '../support/postgres.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { replay } from './replay.ts';
import type { Stage } from './replay.ts';
import { runCommand } from './transcript.ts';

const HOUR = 3_600_000;

let database: TestDatabase & AsyncDisposable;
let stage: Stage;

beforeAll(async () => {
  database = await newTestDatabase();
  const [first, next] = [pricesOf('first'), pricesOf('next')];
  stage = {
    names: {
      FIRST: fileOf('first'),
      NEXT: fileOf('next'),
      BROKEN: fileOf('broken'),
      FIRST_DIGEST: diffPrices([], first).digest,
      NEXT_DIGEST: diffPrices(first, next).digest,
      BACK_DIGEST: diffPrices(next, first).digest,
      FROM: new Date(Date.now() - HOUR).toISOString(),
      TO: new Date(Date.now() + HOUR).toISOString(),
    },
    secrets: [],
    env: { DATABASE_ADMIN_URL: database.adminUrl },
    countRows: () =>
      query(
        'SELECT (SELECT count(*) FROM prices), (SELECT count(*) FROM corrections), (SELECT count(*) FROM audit_events)',
      ),
  };
  // The calls of two merchants, made before there is a price book.
  await makeCalls('merchant-a', 3);
  await makeCalls('merchant-b', 1);
});
afterAll(async () => {
  await database[Symbol.asyncDispose]();
});

const fileOf = (name: string) => path.join(import.meta.dirname, `testdata/prices/${name}.csv`);

function pricesOf(name: string): Price[] {
  const { prices, problems } = parsePriceFile(readFileSync(fileOf(name), 'utf8'));
  expect(problems).toEqual([]);
  return prices;
}

function query(sql: string): Promise<object[]> {
  return onServer(database.adminUrl, async (client) => (await client.query<object>(sql)).rows);
}

async function makeCalls(merchant: string, count: number): Promise<void> {
  await query(`INSERT INTO merchants (id, name, service_defaults_allowed) VALUES ('${merchant}', 'x', true)`);
  await query(`SELECT audit_append('${merchant}', 'x', 'merchant.created', 'x', 'allowed', 'x', '{}')`);
  await using connection = new Database({
    url: new Secret(database.url),
    connectionsMax: 2,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  const ledger = new LedgerStore(connection, { processId: randomUUID() });
  const merchantId = merchant as MerchantId;
  for (let index = 0; index < count; index += 1) {
    const answer = await ledger.hold(merchantId, {
      operation: 'converse',
      // The last one of a merchant is of a model that no book has.
      ...(index === 2
        ? { modelId: 'maker.none', baseModelId: 'maker.none' }
        : { modelId: 'maker.small-v1:0', baseModelId: 'maker.small-v1:0' }),
      region: 'us-east-1',
      source: 'service-default',
      subject: 'x',
      requestId: 'r',
      deadlineSeconds: 60,
      merchantRevision: 1,
      bound: {
        inputTokens: 2e6,
        outputTokens: 1e6,
        outputTokensMost: 1e6,
        clampable: false,
        tier: 'standard',
      },
    });
    if (answer.verdict !== 'admitted') throw new Error(answer.verdict);
    const usage = {
      tokens: { ...NO_TOKENS, input: 1_000_000, output: 500_000 },
      provenance: 'body',
    } as const;
    await ledger.settle(merchantId, answer.id, { state: 'settled', usage, upstream: {} });
  }
}

describe('prices', () => {
  // In this order: the calls are rated by the book that was imported before.
  test.each([
    'help.txt',
    'bad-arguments.txt',
    'bad-file.txt',
    'first-book.txt',
    'next-book.txt',
    'rerate.txt',
  ])('%s', async (file) => {
    await replay(`prices/${file}`, stage);
  });

  test('wrong-login.txt', async () => {
    await replay('prices/wrong-login.txt', { ...stage, env: { DATABASE_ADMIN_URL: database.url } });
  });

  test('unreached.txt', async () => {
    const DATABASE_ADMIN_URL = 'postgres://u:CANARYpassword@127.0.0.1:9/x';
    const names = { ...stage.names, PASSWORD: 'CANARYpassword' };
    await replay('prices/unreached.txt', {
      ...stage,
      names,
      secrets: ['PASSWORD'],
      env: { DATABASE_ADMIN_URL },
    });
  });

  test('what export prints is a file that changes nothing', async () => {
    const { stdout } = await runCommand('scripts/prices.ts', ['export'], { env: stage.env ?? {} });
    expect(diffPrices(pricesOf('next'), parsePriceFile(stdout).prices)).toMatchObject({
      added: [],
      changed: [],
      removed: [],
    });
  });

  test('each import and each merchant that was rated again is in the audit trail, with who ran it', async () => {
    const events = await query(
      `SELECT merchant_id, action, actor LIKE 'cli:_%' AS named FROM audit_events
       WHERE action IN ('prices.imported', 'calls.rerated') ORDER BY at_micros`,
    );
    expect(events).toEqual([
      { merchant_id: '~system', action: 'prices.imported', named: true },
      { merchant_id: '~system', action: 'prices.imported', named: true },
      { merchant_id: 'merchant-b', action: 'calls.rerated', named: true },
      { merchant_id: 'merchant-a', action: 'calls.rerated', named: true },
    ]);
  });
});
