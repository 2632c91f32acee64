import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { OPERATOR_SCOPES } from '../../src/domain/principal.ts';
import { ROUTES } from '../../src/http/routes.ts';
import type { Route } from '../../src/http/route.ts';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, onboard, operatorOf, Person, runtimeCalls } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';

let service: TestService;
let merchantA: MerchantPerson;
let merchantB: MerchantPerson;
let suspended: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  merchantA = await onboard(service, 'merchant-a');
  merchantB = await onboard(service, 'merchant-b-secret-name', { awsKey: AWS.merchantB });
  // Something of B's in every table, so that a leak would have something to show.
  await merchantB.post('/chat', { modelId: MODEL, prompt: 'b' });
  await merchantB.post('/api-keys', { name: 'second', scopes: ['invoke'] });
  suspended = await onboard(service, 'merchant-suspended');
  await operatorOf(service).send('PATCH', '/api/ops/merchants/merchant-suspended', { status: 'suspended' });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

const tenantRoutes = ROUTES.filter((route) => route.endpoint.kind === 'merchant');
const operatorRoutes = ROUTES.filter((route) => route.endpoint.kind === 'operator');
const named = (routes: readonly Route[]): [string, Route][] =>
  routes.map((route) => [`${route.method} ${route.path}`, route]);

/** Ids of a merchant's things, as they stand in paths. */
interface Ids {
  id: string;
  cid: string;
  kid: string;
}

function pathOf(route: Route, ids: Ids): string {
  return route.path
    .replace(':id', ids.id)
    .replace(':cid', ids.cid)
    .replace(':kid', ids.kid)
    .replace('*modelId', encodeURIComponent(MODEL));
}

/** A body the route would take, so that what refuses is never the body. */
function bodyOf(route: Route): unknown {
  if (route.endpoint.body === 'bytes') return converseBody('hello');
  if (route.endpoint.body === undefined) return undefined;
  if (route.path.endsWith('/permissions/test')) return { models: [MODEL] };
  if (route.path.endsWith('/chat')) return { modelId: MODEL, prompt: 'hello' };
  if (route.path.endsWith('/:cid')) return { isDefault: true };
  if (route.path.endsWith('/activate')) return { roleArn: 'arn:aws:iam::100000000001:role/bedrock' };
  if (route.path.endsWith('/api-keys')) return { name: 'made by a stranger', scopes: ['invoke'] };
  if (route.path.endsWith('/approve-account'))
    return { accountId: '1'.repeat(12), reason: 'a stranger asks' };
  if (/\/(credentials|rotate)$/.test(route.path)) {
    return {
      kind: 'access-key',
      ...(route.path.endsWith('/credentials') && { name: 'x', region: 'us-east-1' }),
      awsAccessKeyId: AWS.merchantA.accessKeyId,
      awsSecretAccessKey: AWS.merchantA.secretAccessKey,
    };
  }
  return {};
}

function ask(person: Person, route: Route, ids: Ids): Promise<Answer> {
  return person.send(route.method, pathOf(route, ids), bodyOf(route));
}

/** An answer without what differs from request to request by design. */
function comparable(answer: Answer) {
  const { requestId: _requestId, ...json } = answer.json;
  const headers = Object.fromEntries(
    [...answer.headers].filter(([name]) => !['date', 'x-request-id', 'x-amzn-requestid'].includes(name)),
  );
  return { status: answer.status, json, headers };
}

function expectNothingOfB(answer: Answer): void {
  const everything = answer.text + JSON.stringify([...answer.headers]);
  const secrets = [
    merchantB.merchantId,
    merchantB.credentialId,
    merchantB.apiKeyId,
    AWS.merchantB.accountId,
    AWS.merchantB.accessKeyId,
  ];
  for (const secret of secrets) expect(everything).not.toContain(secret);
}

const own = (): Ids => ({ id: merchantA.merchantId, cid: merchantA.credentialId, kid: merchantA.apiKeyId });
const foreign = (): Ids => ({
  id: merchantB.merchantId,
  cid: merchantB.credentialId,
  kid: merchantB.apiKeyId,
});
const absent = (): Ids => ({ id: 'merchant-z-absent', cid: `cred_${'z'.repeat(22)}`, kid: 'z'.repeat(12) });

test('the table is what is served: nothing else answers, and every row has a permission', () => {
  expect(ROUTES.length).toBeGreaterThan(20);
  for (const route of ROUTES) expect(route.permission === 'public').toBe(route.endpoint.kind === 'public');
});

describe.each(named(tenantRoutes))('%s', (_name, route) => {
  test('anonymous: 401 or 403, no hint', async () => {
    const answers = [
      await ask(new Person(service.url), route, own()),
      await ask(new Person(service.url), route, absent()),
    ];
    expect(answers.map((answer) => answer.status)).toEqual(Array(2).fill(route.shape === 'aws' ? 403 : 401));
    expect(comparable(answers[0] as Answer)).toEqual(comparable(answers[1] as Answer));
  });

  test("A on B's merchant: 404, the same as on one that does not exist, and nothing of B", async () => {
    const calls = runtimeCalls(service).length;
    const theirs = await ask(merchantA, route, foreign());
    const nobodys = await ask(merchantA, route, absent());
    expect(theirs.status).toBe(404);
    expect(comparable(theirs)).toEqual(comparable(nobodys));
    expectNothingOfB(theirs);
    expect(runtimeCalls(service)).toHaveLength(calls);
  });

  test.each([
    'MERCHANT-A',
    'merchant-a%00',
    'merchant-a%2F..%2Fmerchant-b-secret-name',
    '..',
    'merchant-b-secret-name%20',
    'ｍerchant-a',
  ])('A on the odd id %s: 404, and nothing of B', async (id) => {
    const answer = await ask(merchantA, route, { ...own(), id });
    expect(answer.status).toBe(404);
    expectNothingOfB(answer);
  });

  test('an operator is no merchant: 404', async () => {
    expect((await ask(operatorOf(service), route, own())).status).toBe(404);
  });

  test('a merchant that is suspended: 403, and no call', async () => {
    const calls = runtimeCalls(service).length;
    const { merchantId: id, credentialId: cid, apiKeyId: kid } = suspended;
    const answer = await ask(suspended, route, { id, cid, kid });
    expect(answer.status).toBe(403);
    expect(answer.text).toContain('merchant.not_active');
    expect(runtimeCalls(service)).toHaveLength(calls);
  });

  test('a key without the scope: 403 that names it', async () => {
    const others = ['usage:read', 'invoke'].find((scope) => scope !== route.permission) as string;
    const made = await merchantA.post('/api-keys', { name: 'narrow', scopes: [others] });
    const answer = await ask(new Person(service.url, made.json['token'] as string), route, own());
    expect(answer.status).toBe(403);
    expect(answer.text).toContain(route.permission);
  });

  if (/:cid|:kid/.test(route.path)) {
    test("A's path with the id of something of B: 404, the same as one that does not exist", async () => {
      const theirs = await ask(merchantA, route, { ...foreign(), id: merchantA.merchantId });
      const nobodys = await ask(merchantA, route, { ...absent(), id: merchantA.merchantId });
      expect(theirs.status).toBe(404);
      expect(comparable(theirs)).toEqual(comparable(nobodys));
      expectNothingOfB(theirs);
    });
  }

  if (route.permission === 'invoke') {
    test("A naming B's credential: 404, the same as one that does not exist, and no call", async () => {
      const calls = runtimeCalls(service).length;
      const answers = await Promise.all(
        [foreign(), absent()].map(({ cid }) =>
          merchantA.send(route.method, pathOf(route, own()), bodyOf(route), {
            'x-bedrock-credential-id': cid,
          }),
        ),
      );
      expect(answers.map((answer) => answer.status)).toEqual([404, 404]);
      expect(comparable(answers[0] as Answer)).toEqual(comparable(answers[1] as Answer));
      expect(runtimeCalls(service)).toHaveLength(calls);
    });
  }
});

describe.each(named(operatorRoutes))('%s', (_name, route) => {
  test('is for operators only', async () => {
    expect((await ask(new Person(service.url), route, own())).status).toBe(401);
    expect((await ask(merchantA, route, own())).status).toBe(403);
    expect(OPERATOR_SCOPES).toContain(route.permission);
  });
});

test('what A reads of its own holds nothing of B, and B is still whole', async () => {
  for (const path of [
    '/credentials',
    '/usage?groupBy=model,credential,apiKey',
    '/usage/records',
    '/audit',
    '/api-keys',
  ]) {
    const answer = await merchantA.get(path);
    expect(answer.status).toBe(200);
    expectNothingOfB(answer);
  }
  expect((await merchantB.post('/chat', { modelId: MODEL, prompt: 'still here' })).json).toMatchObject({
    accountId: AWS.merchantB.accountId,
  });
});

test('every refusal of a known caller is in its own audit trail', async () => {
  await merchantA.get('/api/merchants/merchant-z-absent/bedrock/usage');
  const { items } = (await merchantA.get('/audit?limit=1')).json as {
    items: { action: string; outcome: string; body: string }[];
  };
  expect(items[0]).toMatchObject({
    action: 'access.denied',
    outcome: 'denied',
    body: JSON.stringify({ code: 'merchant.not_found' }),
  });
});
