import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import { AWS } from '../support/aws-keys.ts';
import { JWT_SETTINGS, signJwt } from '../support/jwt.ts';
import { converseBody, onboard, Person, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';

let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService({
    AUTH_DEV_TOKENS: 'true',
    ...JWT_SETTINGS,
  });
  merchant = await onboard(service, 'merchant-a');
  await onboard(service, 'merchant-b', { awsKey: AWS.merchantB });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

test('a JWT calls as its merchant, with its scopes only, and is named in the ledger and the trail', async () => {
  const person = new Person(service.url, await signJwt('merchant-a', 'invoke usage:read'));
  const answer = await person.post('/api/merchants/merchant-a/bedrock/chat', {
    modelId: MODEL,
    prompt: 'hello',
  });
  expect(answer.json).toMatchObject({ accountId: AWS.merchantA.accountId });
  const { items } = (await person.get('/api/merchants/merchant-a/bedrock/usage/records?limit=1')).json as {
    items: unknown[];
  };
  expect(items[0]).toMatchObject({ subject: 'jwt:user-1', apiKeyId: null, state: 'settled' });
  expect((await person.get('/api/merchants/merchant-a/bedrock/audit')).json).toMatchObject({
    code: 'auth.insufficient_scope',
    scope: 'audit:read',
  });
  expect((await person.get('/api/merchants/merchant-b/bedrock/usage')).json).toMatchObject({
    code: 'merchant.not_found',
  });
  expect((await person.get('/api/ops/usage')).status).toBe(403);
});

test('a dev token, where the configuration takes them', async () => {
  const person = new Person(service.url, 'dev_user_1:merchant-a');
  expect((await person.get('/api/merchants/merchant-a/bedrock/usage')).status).toBe(200);
  expect((await person.get('/api/merchants/merchant-b/bedrock/usage')).status).toBe(404);
  expect(
    (await new Person(service.url, 'dev_user_1:nobody-here').get('/api/merchants/nobody-here/bedrock/usage'))
      .json,
  ).toMatchObject({ code: 'merchant.not_found' });
});

test('x-api-key, as older Anthropic clients send it', async () => {
  const answer = await new Person(service.url).post(
    `/api/merchants/merchant-a/bedrock/model/${MODEL}/converse`,
    converseBody('hello'),
    { 'x-api-key': merchant.token ?? '' },
  );
  expect(answer.status).toBe(200);
});

test('without Postgres nothing is called: 503 with Retry-After; with it again all is well, and no restart', async () => {
  const admin = new pg.Client({ connectionString: process.env['TEST_ADMIN_URL'] ?? '' });
  await admin.connect();
  const { name } = service.database;
  service.standIn.forget();
  await admin.query(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS false`);
  await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  const json = await merchant.post('/chat', { modelId: MODEL, prompt: 'x' });
  expect(json).toMatchObject({ status: 503, json: { code: 'ledger.unavailable' } });
  expect(json.headers.get('retry-after')).toBe('5');
  const wire = await merchant.post(`/model/${MODEL}/converse`, converseBody('x'));
  expect(wire.status).toBe(503);
  expect(wire.headers.get('x-amzn-errortype')).toBe('ServiceUnavailableException');
  expect((await new Person(service.url).get('/readyz')).status).toBe(503);
  expect((await new Person(service.url).get('/livez')).status).toBe(200);
  expect(runtimeCalls(service)).toEqual([]);

  await admin.query(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS true`);
  await admin.end();
  const ready = () => new Person(service.url).get('/readyz');
  let last = await ready(); // for a second what was known before
  for (let tries = 0; last.status !== 200 && tries < 100; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    last = await ready();
  }
  expect(last.json).toEqual({ status: 'ready' });
  expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'x' })).status).toBe(200);
});
