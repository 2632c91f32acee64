import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { SignJWT } from 'jose';
import { mintToken } from '../../src/auth/token.ts';
import { ERRORS } from '../../src/domain/error-catalogue.ts';
import type { ErrorCode } from '../../src/domain/error-catalogue.ts';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, onboard, Person, runtimeCalls } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const ISSUER = 'https://issuer.example';
const AUDIENCE = 'merchant-bedrock';
const JWT_SECRET = 'a shared secret of at least 32 characters';
const AWS_KEY_ID = AWS.merchantA.accessKeyId;

let service: TestService;
let merchant: MerchantPerson;
let revoked = '';
/** Its row says that its time is over. */
let expired = '';
/** Every credential that was sent: none may be in an answer or a log. */
const sent: string[] = [];

beforeAll(async () => {
  service = await startTestService({
    JWT_ALGORITHM: 'HS256',
    JWT_SECRET,
    JWT_ISSUER: ISSUER,
    JWT_AUDIENCE: AUDIENCE,
  });
  merchant = await onboard(service, 'merchant-a');
  await onboard(service, 'merchant-b', { awsKey: AWS.merchantB });
  const made = async () => {
    const { json } = await merchant.post('/api-keys', { name: 'x' });
    return json as { id: string; token: string };
  };
  const first = await made();
  await merchant.send('DELETE', `/api-keys/${first.id}`);
  revoked = first.token;
  const second = await made();
  await onServer(service.database.adminUrl, (client) =>
    client.query(`UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = $1`, [second.id]),
  );
  expired = second.token;
  service.standIn.forget();
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

/** One route of each kind. */
const ROUTES: [string, string, string, unknown][] = [
  ['a route of ours', 'GET', '/api/merchants/merchant-a/bedrock/usage', undefined],
  [
    'a route in AWS’s words',
    'POST',
    `/api/merchants/merchant-a/bedrock/model/${MODEL}/converse`,
    converseBody('x'),
  ],
  ['an operators’ route', 'GET', '/api/ops/merchants', undefined],
];

const jwt = (change: Record<string, unknown> = {}, secret = JWT_SECRET): Promise<string> => {
  const seconds = Math.floor(Date.now() / 1_000);
  const claims: Record<string, unknown> = {
    iss: ISSUER,
    aud: AUDIENCE,
    sub: 'user-1',
    iat: seconds,
    exp: seconds + 300,
    merchant_id: 'merchant-a',
    scope: 'invoke usage:read',
    ...change,
  };
  const payload = Object.fromEntries(Object.entries(claims).filter(([, value]) => value !== undefined));
  return new SignJWT(payload).setProtectedHeader({ alg: 'HS256' }).sign(new TextEncoder().encode(secret));
};
const unsigned = (alg: string): string => {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const seconds = Math.floor(Date.now() / 1_000);
  const claims = {
    iss: ISSUER,
    aud: AUDIENCE,
    sub: 'u',
    iat: seconds,
    exp: seconds + 60,
    merchant_id: 'merchant-a',
  };
  return `${part({ alg })}.${part(claims)}.`;
};
const flip = (token: string, at: number): string =>
  token.slice(0, at) + (token[at] === 'A' ? 'B' : 'A') + token.slice(at + 1);
const token = (): string => merchant.token ?? '';
const bearer = (text: string) => ({ authorization: `Bearer ${text}` });

type Headers = Record<string, string>;
/** What is sent besides a good request, and what it is answered. A path suffix may carry a query. */
const TABLE: [string, ErrorCode, () => Headers | Promise<Headers>, (() => string)?][] = [
  ['nothing', 'auth.missing_token', () => ({})],
  ['a token in a cookie', 'auth.missing_token', () => ({ cookie: `token=${token()}` })],
  ['garbage', 'auth.invalid_token', () => bearer('garbage')],
  ['an empty token', 'auth.invalid_token', () => ({ authorization: 'Bearer' })],
  ['another scheme', 'auth.invalid_token', () => ({ authorization: `Basic ${token()}` })],
  ['no scheme', 'auth.invalid_token', () => ({ authorization: token() })],
  ['two tokens', 'auth.invalid_token', () => bearer(`${token()} ${token()}`)],
  ['5000 characters', 'auth.invalid_token', () => bearer('a'.repeat(5_000))],
  ['one character off in the id', 'auth.invalid_token', () => bearer(flip(token(), 12))],
  ['one character off in the secret', 'auth.invalid_token', () => bearer(flip(token(), 40))],
  ['one character off in the checksum', 'auth.invalid_token', () => bearer(flip(token(), 77))],
  ['a token that nobody has', 'auth.invalid_token', () => bearer(mintToken('merchant', 'test').text)],
  ['an operator that nobody is', 'auth.invalid_token', () => bearer(mintToken('operator', 'test').text)],
  ['a token of production', 'auth.invalid_token', () => bearer(mintToken('merchant', 'live').text)],
  ['a revoked token', 'auth.invalid_token', () => bearer(revoked)],
  ['an expired token', 'auth.invalid_token', () => bearer(expired)],
  ['a dev token, where none are taken', 'auth.invalid_token', () => bearer('dev_user_1:merchant-a')],
  ['a JWT without algorithm', 'auth.invalid_token', () => bearer(unsigned('none'))],
  ['a JWT that says HS256 and is not signed', 'auth.invalid_token', () => bearer(unsigned('HS256'))],
  ['a JWT of another secret', 'auth.invalid_token', async () => bearer(await jwt({}, 'x'.repeat(32)))],
  ['a JWT of another audience', 'auth.invalid_token', async () => bearer(await jwt({ aud: 'x' }))],
  ['a JWT of another issuer', 'auth.invalid_token', async () => bearer(await jwt({ iss: 'x' }))],
  ['a JWT that does not end', 'auth.invalid_token', async () => bearer(await jwt({ exp: undefined }))],
  ['a JWT that has ended', 'auth.invalid_token', async () => bearer(await jwt({ exp: 1 }))],
  ['a JWT of no merchant', 'auth.invalid_token', async () => bearer(await jwt({ merchant_id: undefined }))],
  ['x-api-key with garbage', 'auth.invalid_token', () => ({ 'x-api-key': 'garbage' })],
  ['x-api-key of a revoked token', 'auth.invalid_token', () => ({ 'x-api-key': revoked })],
  [
    'an AWS signature',
    'auth.sigv4_not_supported',
    () => ({
      authorization: `AWS4-HMAC-SHA256 Credential=${AWS_KEY_ID}/20261121/us-east-1/bedrock/aws4_request`,
    }),
  ],
  ['access_token in the query', 'auth.token_in_wrong_place', () => ({}), () => `?access_token=${token()}`],
  [
    'access_token as a list',
    'auth.token_in_wrong_place',
    () => bearer(token()),
    () => `?access_token[]=${token()}`,
  ],
  ['access_token as an object', 'auth.token_in_wrong_place', () => ({}), () => `?access_token[a]=${token()}`],
  ['a token under another name', 'auth.token_in_wrong_place', () => ({}), () => `?key=${token()}`],
  [
    'a form',
    'auth.token_in_wrong_place',
    () => ({ ...bearer(token()), 'content-type': 'application/x-www-form-urlencoded' }),
  ],
];

/** Jest takes a parameter too many for a callback. */
const ROWS = TABLE.map(
  ([what, code, headersOf, suffixOf = () => '']) => [what, code, headersOf, suffixOf] as const,
);

/** RFC 6750 section 3.1: no error code for who sent nothing. */
const CHALLENGES: Partial<Record<ErrorCode, string>> = {
  'auth.missing_token': 'Bearer realm="merchant-bedrock"',
  'auth.invalid_token': 'Bearer realm="merchant-bedrock", error="invalid_token"',
  'auth.token_in_wrong_place': 'Bearer realm="merchant-bedrock", error="invalid_request"',
  'auth.sigv4_not_supported': 'Bearer realm="merchant-bedrock"',
};

function expectProblem(answer: Answer, code: ErrorCode, challenge = CHALLENGES[code] ?? null): void {
  const { status, title } = ERRORS[code];
  expect(answer.status).toBe(status);
  expect(answer.headers.get('content-type')).toBe('application/problem+json');
  expect(answer.headers.get('www-authenticate')).toBe(challenge);
  expect(answer.json).toEqual({
    type: `https://merchant-bedrock.dev/errors/${code}`,
    title,
    status,
    detail: expect.any(String),
    code,
    requestId: answer.headers.get('x-request-id'),
  });
}

/** AWS has no 401. */
function expectAwsError(answer: Answer, code: ErrorCode, challenge = CHALLENGES[code] ?? null): void {
  const { status, awsType } = ERRORS[code];
  expect(answer.status).toBe(status === 401 ? 403 : status);
  expect(answer.headers.get('x-amzn-errortype')).toBe(awsType);
  expect(answer.headers.get('www-authenticate')).toBe(challenge);
  expect(Object.keys(answer.json)).toEqual(['message']);
  expect(answer.json['message']).toContain(`[${code}]`);
}

test('the table has at least eighty cases', () => {
  expect(TABLE.length * ROUTES.length).toBeGreaterThanOrEqual(80);
});

describe.each(ROUTES)('%s', (name, method, path, body) => {
  test.each(ROWS)('%s: %s', async (what, code, headersOf, suffixOf) => {
    const headers = await headersOf();
    sent.push(...Object.values(headers).map((value) => value.replace(/^Bearer /, '')));
    const answer = await new Person(service.url).send(method, path + suffixOf(), body, headers);
    // RFC 6750 3.1: no error code either for who tried in another way.
    const challenge = /^(another|no) scheme$/.test(what)
      ? 'Bearer realm="merchant-bedrock"'
      : (CHALLENGES[code] ?? null);
    if (name.includes('AWS')) expectAwsError(answer, code, challenge);
    else expectProblem(answer, code, challenge);
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(answer.headers.get('set-cookie')).toBeNull();
    for (const value of [...Object.values(headers), token(), AWS_KEY_ID, 'jwt', 'JOSE'])
      if (value.length > 2 && value !== 'Bearer')
        expect(answer.text).not.toContain(value.replace(/^Bearer /, ''));
  });
});

test('every reason not to accept a token is answered in the same words', async () => {
  const texts = new Set<string>();
  for (const [, code, headersOf] of TABLE) {
    if (code !== 'auth.invalid_token') continue;
    const answer = await new Person(service.url).get(
      '/api/merchants/merchant-a/bedrock/usage',
      await headersOf(),
    );
    texts.add(JSON.stringify({ ...answer.json, requestId: '' }));
  }
  expect(texts.size).toBe(1);
});

test('a good token, a good JWT and x-api-key are let in where the others were not', async () => {
  const [, , path = ''] = ROUTES[0] ?? [];
  expect((await merchant.get(path)).status).toBe(200);
  expect((await new Person(service.url).get(path, { 'x-api-key': token() })).status).toBe(200);
  expect((await new Person(service.url, await jwt()).get(path)).status).toBe(200);
  expect((await new Person(service.url, service.operatorToken).get('/api/ops/merchants')).status).toBe(200);
});

describe('a good token on the wrong route', () => {
  const elsewhere = [
    'merchant-b',
    'nobody-here',
    'Merchant-A',
    'merchant-a%2F..%2Fmerchant-b',
    'merchant-a%00',
    '~system',
    '%E2%84%AAelvin',
    'a',
    'a'.repeat(64),
  ];
  test.each(elsewhere)('merchant %s is not there', async (id) => {
    const answer = await new Person(service.url, token()).get(`/api/merchants/${id}/bedrock/usage`);
    expectProblem(answer, 'merchant.not_found');
    const none = await new Person(service.url, token()).get('/api/merchants/nobody-at-all/bedrock/usage');
    expect({ ...answer.json, requestId: '' }).toEqual({ ...none.json, requestId: '' });
  });

  test('the merchant is looked at before the scope', async () => {
    const person = new Person(service.url, await jwt({ scope: '' }));
    expectProblem(await person.get('/api/merchants/merchant-b/bedrock/usage'), 'merchant.not_found');
  });

  test('without the scope: 403 that names it, in the challenge too', async () => {
    const person = new Person(service.url, await jwt({ scope: 'invoke ops:merchants:read root' }));
    for (const [path, scope] of [
      ['/api/merchants/merchant-a/bedrock/usage', 'usage:read'],
      ['/api/ops/merchants', 'ops:merchants:read'],
    ] as const) {
      const answer = await person.get(path);
      expect(answer).toMatchObject({ status: 403, json: { code: 'auth.insufficient_scope', scope } });
      expect(answer.headers.get('www-authenticate')).toBe(
        `Bearer realm="merchant-bedrock", error="insufficient_scope", scope="${scope}"`,
      );
    }
  });

  test('on a route in AWS’s words the challenge is the same', async () => {
    const person = new Person(service.url, await jwt({ scope: 'usage:read' }));
    const answer = await person.post(
      `/api/merchants/merchant-a/bedrock/model/${MODEL}/converse`,
      converseBody('x'),
    );
    expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([
      403,
      'Bearer realm="merchant-bedrock", error="insufficient_scope", scope="invoke"',
    ]);
  });

  test('an operator is nobody on a merchant’s routes', async () => {
    const operator = new Person(service.url, service.operatorToken);
    expectProblem(await operator.get('/api/merchants/merchant-a/bedrock/usage'), 'merchant.not_found');
  });
});

test('nothing went to AWS, and nothing that was sent is in the log', () => {
  expect(runtimeCalls(service)).toEqual([]);
  const log = service.logLines.join('\n');
  expect(log).toContain('auth.invalid_token');
  for (const value of [...sent, token(), revoked, expired]) {
    // The id may be logged; what proves may not. `garbage` and the like prove nothing.
    if (value.length >= 40) expect(log).not.toContain(value.slice(-40));
  }
});
