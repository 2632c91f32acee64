import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ERRORS } from '../../src/domain/error-catalogue.ts';
import { converseBody, onboard, operatorOf, Person, runtimeCalls } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';

let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  merchant = await onboard(service, 'merchant-a');
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

/** Every problem document is whole, of the catalogue, and says in words what to do. */
function expectProblem(answer: Answer, code: keyof typeof ERRORS, says?: RegExp): void {
  expect({ status: answer.status, code: answer.json['code'] }).toEqual({ status: ERRORS[code].status, code });
  expect(answer.headers.get('content-type')).toBe('application/problem+json');
  expect(answer.json).toMatchObject({
    title: ERRORS[code].title,
    status: answer.status,
    type: expect.stringContaining(code),
    requestId: answer.headers.get('x-request-id'),
  });
  expect((answer.json['detail'] as string).length).toBeGreaterThan(15);
  if (says !== undefined) expect(answer.json['detail']).toMatch(says);
}

const nested = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

describe('bodies', () => {
  const bodies: [string, string | Uint8Array, keyof typeof ERRORS, RegExp][] = [
    ['empty', '', 'request.malformed_json', /empty/],
    ['no JSON', '{"modelId": ', 'request.malformed_json', /JSON/],
    ['a list', '[1,2]', 'request.malformed_json', /object/],
    [
      'invalid UTF-8',
      Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]),
      'request.malformed_json',
      /UTF-8/,
    ],
    ['nested 100 deep', nested(100), 'request.too_complex', /./],
    ['nested 100,000 deep', nested(100_000), 'request.too_complex', /./],
    [
      '30,000 members',
      JSON.stringify(
        Object.fromEntries(Array.from({ length: 30_000 }, (_, index) => [`k${String(index)}`, 1])),
      ),
      'request.too_complex',
      /./,
    ],
    ['__proto__', '{"__proto__":{"isAdmin":true},"modelId":"x","prompt":"y"}', 'request.invalid', /./],
    [
      'unknown members',
      JSON.stringify({ modelId: MODEL, prompt: 'x', modelld: 'typo' }),
      'request.invalid',
      /modelld/,
    ],
    ['missing members', JSON.stringify({ modelId: MODEL }), 'request.invalid', /prompt/],
    [
      'both prompt and messages',
      JSON.stringify({ modelId: MODEL, prompt: 'x', messages: [{ role: 'user', content: 'y' }] }),
      'request.invalid',
      /exactly one/,
    ],
    [
      'wrong types',
      JSON.stringify({ modelId: 7, prompt: 'x', maxTokens: '10' }),
      'request.invalid',
      /modelId.*maxTokens/,
    ],
    [
      'numbers out of range',
      JSON.stringify({ modelId: MODEL, prompt: 'x', temperature: 7, maxTokens: -1 }),
      'request.invalid',
      /temperature.*maxTokens/,
    ],
    [
      'larger than a JSON route takes',
      JSON.stringify({ modelId: MODEL, prompt: 'x'.repeat(2_000_000) }),
      'request.too_large',
      /1048576/,
    ],
  ];
  test.each(bodies)('%s', async (_name, body, code, says) => {
    expectProblem(await merchant.post('/chat', body), code, says);
  });

  test('a value that is wrong is not repeated', async () => {
    const answer = await merchant.post('/chat', {
      modelId: { canary: 'canary-7f3a' },
      prompt: 'x',
      temperature: 'canary-7f3a',
    });
    expect(answer.text).not.toContain('canary-7f3a');
  });

  test.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/xml',
  ])('content type %s', async (type) => {
    const answer = await merchant.post('/chat', 'a=b', { 'content-type': type });
    expect([400, 415]).toContain(answer.status);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
  });

  test('compressed', async () => {
    expectProblem(
      await merchant.post('/chat', 'x', { 'content-encoding': 'gzip' }),
      'request.unsupported_media_type',
    );
  });

  test('26 MB, on both shapes', async () => {
    const large = new Uint8Array(26_000_000);
    expectProblem(await merchant.post('/chat', large), 'request.too_large');
    const wire = await merchant.post(`/model/${MODEL}/invoke`, large);
    expect(wire.status).toBe(413);
    expect(wire.headers.get('x-amzn-errortype')).toBe('ValidationException');
    expect(wire.json['message']).toMatch(/25000000/);
  });

  /** What AWS gets of a Converse body: the call's id in front, all else byte for byte. */
  const withMetadata = (body: string, callId: string | null): string =>
    `{"requestMetadata":{"merchantBedrockCall":"${callId ?? ''}"},${body.slice(1)}`;

  test('25 MB on the wire goes through, byte for byte', async () => {
    const body = JSON.stringify(converseBody('x'.repeat(24_900_000)));
    const answer = await merchant.post(`/model/${MODEL}/converse`, body);
    expect(answer.status).toBe(200);
    const seen = runtimeCalls(service).at(-1);
    const { createHash } = await import('node:crypto');
    const sent = withMetadata(body, answer.headers.get('x-bedrock-call-id'));
    expect(seen).toMatchObject({
      verified: true,
      bodySha256: createHash('sha256').update(sent).digest('hex'),
    });
  });

  test('bytes in are bytes out: unknown fields, order and white space survive', async () => {
    const body =
      '{ "zzz_unknown":\t{"b":1,"a":[1.0,2e3]},\n"messages":[{"role":"user","content":[{"text":"caf\\u00e9"}]}] }';
    const seen = () => Buffer.from(runtimeCalls(service).at(-1)?.bodyBase64 ?? '', 'base64').toString();
    const converse = await merchant.post(`/model/${MODEL}/converse`, body);
    expect(seen()).toBe(withMetadata(body, converse.headers.get('x-bedrock-call-id')));
    await merchant.post(`/model/${MODEL}/invoke`, body);
    expect(seen()).toBe(body);
  });
});

describe('tokens', () => {
  const path = '/api/merchants/merchant-a/bedrock/usage';
  const flip = (token: string) => token.slice(0, -1) + (token.endsWith('A') ? 'B' : 'A');

  test.each<[string, () => Promise<Answer>, keyof typeof ERRORS, RegExp]>([
    ['none', () => new Person(service.url).get(path), 'auth.missing_token', /Authorization: Bearer/],
    ['garbage', () => new Person(service.url, 'garbage').get(path), 'auth.invalid_token', /mistyped/],
    [
      'one character off',
      () => new Person(service.url, flip(merchant.token ?? '')).get(path),
      'auth.invalid_token',
      /./,
    ],
    [
      'a scheme we do not take',
      () => new Person(service.url).get(path, { authorization: 'Basic dTpw' }),
      'auth.invalid_token',
      /./,
    ],
    [
      'in the query',
      () => merchant.get(`/usage?access_token=${merchant.token ?? ''}`),
      'auth.token_in_wrong_place',
      /query/,
    ],
    [
      'in the query, as a list',
      () => merchant.get(`/usage?access_token[]=${merchant.token ?? ''}`),
      'auth.token_in_wrong_place',
      /query/,
    ],
    [
      'a dev token, where none are taken',
      () => new Person(service.url, 'dev_user_1:merchant-a').get(path),
      'auth.invalid_token',
      /./,
    ],
  ])('%s', async (_name, ask, code, says) => {
    const answer = await ask();
    expectProblem(answer, code, says);
    if (answer.status === 401)
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer realm="merchant-bedrock"/);
    expect(answer.text).not.toContain(merchant.token);
  });

  test('in a body it is never looked at', async () => {
    const answer = await new Person(service.url).post('/api/merchants/merchant-a/bedrock/chat', {
      access_token: merchant.token,
      modelId: MODEL,
      prompt: 'x',
    });
    expectProblem(answer, 'auth.missing_token');
  });

  test('an AWS signature is refused with the way to do it right', async () => {
    const answer = await new Person(service.url).post(
      `/api/merchants/merchant-a/bedrock/model/${MODEL}/converse`,
      converseBody('x'),
      {
        authorization:
          'AWS4-HMAC-SHA256 Credential=AKIAX/20261121/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00',
      },
    );
    expect(answer.status).toBe(403);
    expect(answer.json['message']).toMatch(/AWS_BEARER_TOKEN_BEDROCK/);
  });

  test('a revoked key is refused at once, on every route', async () => {
    const made = await merchant.post('/api-keys', { name: 'short-lived' });
    const person = new Person(service.url, made.json['token'] as string);
    expect((await person.get(path)).status).toBe(200);
    expect((await merchant.send('DELETE', `/api-keys/${made.json['id'] as string}`)).status).toBe(204);
    expectProblem(await person.get(path), 'auth.invalid_token');
  });

  test('a key makes no key that can do more than itself', async () => {
    const made = await merchant.post('/api-keys', { name: 'clerk', scopes: ['api-keys:write'] });
    const clerk = new Person(service.url, made.json['token'] as string);
    const answer = await clerk.post('/api/merchants/merchant-a/bedrock/api-keys', {
      name: 'x',
      scopes: ['invoke'],
    });
    expectProblem(answer, 'auth.insufficient_scope', /invoke/);
  });
});

describe('ids, queries and paths', () => {
  test.each([
    '/usage?timeframe=decade',
    '/usage?timeframe=day&timeframe=week',
    '/usage?groupBy=password',
    '/usage?groupBy=model,model',
    '/usage?timefame=day',
    '/usage/records?cursor=1',
    '/usage/records?limit=0',
    '/usage/records?limit=100000',
    '/audit?cursor=-1',
  ])('%s', async (path) => {
    expectProblem(await merchant.get(path), 'request.invalid');
  });

  test.each(['..%2F..%2Fcredentials', 'a b', 'x'.repeat(3_000), 'nova%00', '%E2%82%AC'])(
    'model id %s',
    async (id) => {
      const calls = runtimeCalls(service).length;
      const answer = await merchant.post(`/model/${id}/converse`, converseBody('x'));
      expect(answer.status).toBe(400);
      expect(answer.headers.get('x-amzn-errortype')).toBe('ValidationException');
      expect(runtimeCalls(service)).toHaveLength(calls);
    },
  );

  test('a malformed percent-encoding', async () => {
    expectProblem(await merchant.get('/credentials/%zz'), 'request.invalid', /percent/);
  });

  test('a trailing slash on the endpoint, as the JavaScript SDK sends it', async () => {
    const answer = await merchant.post(`//model//${MODEL}/converse`, converseBody('x'));
    expect(answer.status).toBe(200);
  });

  test('no such route, and the wrong method', async () => {
    expectProblem(await merchant.get('/nothing'), 'route.not_found', /openapi/);
    const answer = await merchant.send('DELETE', '/usage');
    expectProblem(answer, 'route.method_not_allowed', /GET/);
    expect(answer.headers.get('allow')).toBe('GET');
  });

  test('onboarding lists every problem at once, and writes nothing', async () => {
    const answer = await operatorOf(service).post('/api/ops/merchants', {
      id: 'UPPER',
      name: '',
      apiKey: { name: 'x', scopes: ['root'] },
      credential: {
        kind: 'access-key',
        name: 'x',
        region: 'mars',
        awsAccessKeyId: 'AKIA',
        awsSecretAccessKey: 'short',
      },
    });
    expectProblem(answer, 'request.invalid');
    expect((answer.json['problems'] as string[]).length).toBeGreaterThanOrEqual(5);
    const exists = await operatorOf(service).post('/api/ops/merchants', {
      id: 'merchant-a',
      name: 'again',
      apiKey: { name: 'x' },
    });
    expectProblem(exists, 'merchant.already_exists', /Choose another id/);
  });
});
