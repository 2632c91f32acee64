import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ListSecretsCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import pg from 'pg';
import { AWS } from '../support/aws-keys.ts';
import { MerchantPerson, onboard, Person } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';

let service: TestService;
let merchant: MerchantPerson;
let admin: pg.Client;
let secrets: SecretsManagerClient;

beforeAll(async () => {
  service = await startTestService({ VAULT_TIMEOUT_MS: '4000' });
  merchant = await onboard(service, 'tidy');
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  const { accessKeyId, secretAccessKey } = AWS.service;
  secrets = new SecretsManagerClient({
    endpoint: service.standIn.url,
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
  });
});
afterAll(async () => {
  secrets.destroy();
  await admin.end();
  await service[Symbol.asyncDispose]();
});
beforeEach(async () => {
  service.standIn.forget();
  await admin.query('DELETE FROM secret_intents');
});

async function intents(): Promise<string[]> {
  const { rows } = await admin.query<{ secret_name: string }>(
    'SELECT secret_name FROM secret_intents ORDER BY 1',
  );
  return rows.map((row) => row.secret_name);
}

async function namesAtAws(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({ MaxResults: 100 }));
  return SecretList.map(({ Name = '' }) => Name).sort();
}

function store(person: MerchantPerson = merchant) {
  return person.post('/credentials', {
    kind: 'access-key',
    name: 'another',
    region: 'us-east-1',
    awsAccessKeyId: AWS.merchantADirect.accessKeyId,
    awsSecretAccessKey: AWS.merchantADirect.secretAccessKey,
  });
}

/** As an hour would. */
async function age(): Promise<void> {
  await admin.query(`UPDATE secret_intents SET created_at = created_at - interval '61 minutes'`);
}

test('a stored credential leaves no name behind, and no sweep touches its secret', async () => {
  const before = await namesAtAws();
  expect((await store()).status).toBe(201);
  expect(await intents()).toEqual([]);
  await age();
  await service.service.sweepLeftovers();
  expect((await namesAtAws()).length).toBe(before.length + 1);
});

test('a secret whose creation was not answered is removed an hour later, not before', async () => {
  const before = await namesAtAws();
  // AWS creates it, and says nothing.
  service.standIn.fault({ operation: 'CreateSecret', hangHeaders: true, times: 'always' });
  expect((await store()).json['code']).toBe('vault.unavailable');
  const [left] = await intents();
  expect(await namesAtAws()).toEqual([...before, left].sort());
  await service.service.sweepLeftovers();
  expect(await intents()).toEqual([left]);
  await age();
  await service.service.sweepLeftovers();
  expect(await intents()).toEqual([]);
  expect(await namesAtAws()).toEqual(before);
});

test('a process that is killed between the secret and its row leaves the secret to another', async () => {
  const before = await namesAtAws();
  await using victim = await startServiceProcess({ ...service.env, LOG_LEVEL: 'silent' });
  const { merchantId, token = '', credentialId, apiKeyId } = merchant;
  const person = new MerchantPerson(victim.url, { merchantId, token, credentialId, apiKeyId });
  service.standIn.fault({ operation: 'CreateSecret', hangHeaders: true, times: 'always' });
  const storing = store(person).catch(() => undefined);
  await until('AWS has it', async () => (await namesAtAws()).length > before.length);
  await victim.end('SIGKILL');
  await storing;
  expect(await intents()).toHaveLength(1);
  await age();
  await service.service.sweepLeftovers();
  expect([await intents(), await namesAtAws()]).toEqual([[], before]);
});

test('of two sweeps one gets a left-over, and one that failed is tried again', async () => {
  await announce('mbk/main/a/left');
  await age();
  service.standIn.fault({ operation: 'DeleteSecret', status: 500, times: 'always' });
  await service.service.sweepLeftovers();
  const take = async () => (await admin.query('SELECT * FROM secret_leftovers_take(3600000, 10)')).rows;
  expect(await take()).toEqual([]);
  expect(await intents()).toEqual(['mbk/main/a/left']);
  expect(service.logLines.some((line) => line.includes('ciphertext left behind'))).toBe(true);
  service.standIn.forget();
  await admin.query(`UPDATE secret_intents SET swept_at = swept_at - interval '11 minutes'`);
  const both = await Promise.all([take(), onOther('SELECT * FROM secret_leftovers_take(3600000, 10)')]);
  expect(both.flat()).toHaveLength(1);
});

test('a commit that is slow is left alone; one that comes after the sweep began is refused', async () => {
  await announce('mbk/main/a/slow');
  await age();
  await admin.query('BEGIN');
  await admin.query(`SELECT set_config('app.merchant_id', 'tidy', true)`);
  expect((await admin.query(`SELECT secret_commit('mbk/main/a/slow') AS mine`)).rows).toEqual([
    { mine: true },
  ]);
  expect(await onOther('SELECT * FROM secret_leftovers_take(3600000, 10)')).toEqual([]);
  await admin.query('ROLLBACK');
  expect(await onOther('SELECT secret_name FROM secret_leftovers_take(3600000, 10)')).toEqual([
    { secret_name: 'mbk/main/a/slow' },
  ]);
  await admin.query('BEGIN');
  await admin.query(`SELECT set_config('app.merchant_id', 'tidy', true)`);
  expect((await admin.query(`SELECT secret_commit('mbk/main/a/slow') AS mine`)).rows).toEqual([
    { mine: false },
  ]);
  await admin.query('ROLLBACK');
});

test('a credential whose secret a sweep has begun to remove is not stored, and nothing of it stays', async () => {
  const [secretsBefore, listBefore] = [await namesAtAws(), await merchant.get('/credentials')];
  // The sweep comes while AWS is still answering.
  service.standIn.fault({ operation: 'CreateSecret', beforeHeadersHangMs: 1_800 });
  const storing = store();
  await until('its name is announced', async () => (await intents()).length === 1);
  await admin.query('UPDATE secret_intents SET swept_at = clock_timestamp()');
  expect((await storing).json['code']).toBe('vault.unavailable');
  expect((await merchant.get('/credentials')).json).toEqual(listBefore.json);
  expect([await intents(), await namesAtAws()]).toEqual([[], secretsBefore]);
});

test('a secret that a credential uses is never taken, whatever is announced', async () => {
  const { rows } = await admin.query<{ secret_name: string }>('SELECT secret_name FROM credential_versions');
  for (const { secret_name } of rows) await announce(secret_name);
  await age();
  await service.service.sweepLeftovers();
  expect((await intents()).length).toBe(rows.length);
  expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'x' })).status).toBe(200);
});

async function announce(name: string): Promise<void> {
  await onOther(`SELECT secret_announce('tidy', '${name}')`);
}

/** On a connection of its own, as the service's login. */
async function onOther(sql: string): Promise<object[]> {
  const client = new pg.Client({ connectionString: service.database.url });
  await client.connect();
  try {
    return (await client.query<object>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe('what is deleted leaves nothing at Secrets Manager', () => {
  const closing = async () => {
    const person = await onboard(service, 'leaving');
    for (let more = 0; more < 5; more += 1) await store(person);
    return new Person(service.url, service.operatorToken).post('/api/ops/merchants/leaving/close', {
      merchantId: 'leaving',
    });
  };
  const deleting = async () => {
    const { json } = await store();
    return merchant.send('DELETE', `/credentials/${String(json['id'])}`);
  };

  test.each([
    ['a credential', deleting, 1],
    ['a merchant', closing, 6],
  ])('%s, although Secrets Manager failed', async (_what, leave, count) => {
    const before = await namesAtAws();
    service.standIn.fault({ operation: 'DeleteSecret', status: 500, times: 'always' });
    expect((await leave()).status).toBeLessThan(300);
    expect(await intents()).toHaveLength(count);
    await service.service.sweepLeftovers();
    expect(await namesAtAws()).toHaveLength(before.length + count);
    service.standIn.forget();
    await age();
    await service.service.sweepLeftovers();
    expect([await intents(), await namesAtAws()]).toEqual([[], before]);
  });

  test('and is struck off where it was removed at once', async () => {
    const before = await namesAtAws();
    expect((await deleting()).status).toBeLessThan(300);
    expect([await intents(), await namesAtAws()]).toEqual([[], before]);
  });
});
