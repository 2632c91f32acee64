import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { newTestDatabase } from '../support/database.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { converseBody, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

// Nobody is told that nothing was done where that is not certain; where it is, they are.
const WIRE = '/model/anthropic.claude-3-5-haiku-20241022-v1:0/converse';
const KEY = { name: 'ci', scopes: ['invoke'] };
const NOTHING = /nothing was/i;

let database: TestDatabase & AsyncDisposable;
let proxy: FaultProxy;
let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  database = await newTestDatabase();
  proxy = await FaultProxy.start();
  proxy.leadTo(database.url);
  const url = new URL(database.url);
  url.port = String(proxy.port);
  service = await startTestService({ DATABASE_URL: url.href }, database);
  merchant = await onboard(service, 'merchant-a');
});
afterEach(() => proxy.set({ kind: 'open' }));
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  await proxy[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const keys = async () =>
  ((await merchant.get('/api-keys')).json['items'] as { name: string }[]).map(({ name }) => name);

test('a key that was made, and the answer of its commit was lost: its maker is told to look, and finds it', async () => {
  expect(await keys()).not.toContain('ci');
  await proxy.set({ kind: 'lost answer', of: 'api_keys', to: 'COMMIT' });
  const made = await merchant.post('/api-keys', KEY);
  await proxy.set({ kind: 'open' });
  expect([made.status, made.json['code']]).toEqual([503, 'ledger.unavailable']);
  expect(made.json['detail']).not.toMatch(NOTHING);
  expect(made.json['detail']).toMatch(/not known .* look \(GET/);
  expect(await keys()).toContain('ci');
});

test('a request that the database did not let begin did nothing, and says so', async () => {
  await proxy.set({ kind: 'refused' });
  for (const path of ['/api-keys', WIRE]) {
    const refused = await merchant.post(path, path === WIRE ? converseBody('x') : KEY);
    expect([refused.status, refused.text]).toEqual([503, expect.stringMatching(NOTHING)]);
  }
});

test('a paid call whose admission was written, and the answer was lost, was not sent, and says so', async () => {
  expect((await merchant.post(WIRE, converseBody('warm'))).status).toBe(200);
  service.standIn.forget();
  await proxy.set({ kind: 'lost answer', of: 'ledger_hold', to: 'ledger_hold' });
  const wire = await merchant.post(WIRE, converseBody('x'));
  const chat = await merchant.post('/chat', { modelId: 'amazon.nova-micro-v1:0', prompt: 'x' });
  await proxy.set({ kind: 'open' });
  for (const answer of [wire, chat])
    expect([answer.status, answer.text]).toEqual([
      503,
      expect.stringMatching(/No call was made and nothing was sent to AWS/),
    ]);
  expect(runtimeCalls(service)).toEqual([]);
});
