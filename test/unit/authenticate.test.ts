import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import express from 'express';
import type { NextFunction, Request, Response } from 'express';
import { mintToken } from '../../src/auth/token.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ErrorCode } from '../../src/domain/error-catalogue.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import type { Principal } from '../../src/domain/principal.ts';
import { authenticate } from '../../src/http/steps/authenticate.ts';
import { carriedBy } from '../../src/http/steps/begin.ts';

const GOOD = mintToken('merchant', 'test').text;
const principal: Principal = {
  kind: 'merchant',
  merchantId: 'acme' as MerchantId,
  subject: 'api-key:x',
  scopes: [],
};

/** The tokens that the verifier was shown. */
let shown: string[] = [];
const step = authenticate(
  (token) => {
    shown.push(token);
    if (token === 'database-away') return Promise.reject(new ServiceError('ledger.unavailable', 'away'));
    if (token === 'broken') return Promise.reject(new Error('secret of the verifier'));
    return Promise.resolve(token === GOOD ? principal : undefined);
  },
  { remembered: false },
);

/** A server that is worse than ours: it parses queries and bodies before it asks who is calling. */
const app = express();
app.set('query parser', 'extended');
app.use(express.json(), express.text({ type: 'text/plain' }));
app.use((req, _res, next) => {
  // As after a body parser for forms, which would take the body of a form of any content type.
  if (typeof req.body === 'string') req.body = Object.fromEntries(new URLSearchParams(req.body));
  next();
});
app.use(step, (_req, res) => {
  res.json({ principal: carriedBy(res).principal, session: Reflect.get(_req, 'session') ?? null });
});
app.use((error: unknown, _req: Request, res: Response, _next: NextFunction) => {
  if (error instanceof ServiceError) res.status(400).json({ code: error.code, detail: error.detail });
  else res.status(500).json({ code: 'not a ServiceError', detail: String(error) });
});
const server = app.listen(0, '127.0.0.1');

beforeAll(async () => {
  if (!server.listening) await once(server, 'listening');
});
beforeEach(() => {
  shown = [];
});
afterAll(() => {
  server.close();
});

interface Sent {
  path?: string;
  /** Names may stand more than once. */
  headers?: [string, string][];
  body?: string;
}
interface Got {
  status: number;
  text: string;
  headers: Record<string, unknown>;
  json: { code?: string; detail?: string; principal?: unknown; session?: unknown };
}

/** Plain node:http: fetch would put headers of the same name together. */
function send({ path = '/', headers = [], body }: Sent): Promise<Got> {
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    const raw = ['host', 'localhost', ...(body === undefined ? [] : ['content-length', String(body.length)])];
    const request = httpRequest({
      port,
      path,
      method: body === undefined ? 'GET' : 'POST',
      headers: [...raw, ...headers.flat()],
    });
    request.once('error', reject).once('response', (response) => {
      let text = '';
      response
        .setEncoding('utf8')
        .on('data', (chunk: string) => (text += chunk))
        .once('end', () => {
          resolve({
            status: response.statusCode ?? 0,
            text,
            headers: response.headers,
            json: JSON.parse(text) as Got['json'],
          });
        });
    });
    request.end(body);
  });
}

const bearer = (token: string): [string, string] => ['Authorization', `Bearer ${token}`];

describe('a token in its place', () => {
  test.each<[string, [string, string][], string]>([
    ['Authorization: Bearer', [bearer(GOOD)], GOOD],
    ['the scheme in small letters', [['authorization', `bearer ${GOOD}`]], GOOD],
    ['the scheme in capitals', [['AUTHORIZATION', `BEARER ${GOOD}`]], GOOD],
    ['several spaces', [['Authorization', `Bearer    ${GOOD}`]], GOOD],
    ['x-api-key', [['x-api-key', GOOD]], GOOD],
    ['X-Api-Key', [['X-Api-Key', GOOD]], GOOD],
  ])('%s', async (_name, headers, token) => {
    const answer = await send({ headers });
    expect(answer.json).toEqual({ principal, session: null });
    expect(answer.headers['set-cookie']).toBeUndefined();
    expect(shown).toEqual([token]);
  });

  test('4096 characters are shown to the verifier, one more is not', async () => {
    expect((await send({ headers: [bearer('a'.repeat(4_096))] })).json.code).toBe('auth.invalid_token');
    expect((await send({ headers: [['x-api-key', 'b'.repeat(4_096)]] })).json.code).toBe(
      'auth.invalid_token',
    );
    expect(shown).toEqual(['a'.repeat(4_096), 'b'.repeat(4_096)]);
    shown = [];
    expect((await send({ headers: [bearer('a'.repeat(4_097))] })).json.code).toBe('auth.invalid_token');
    expect((await send({ headers: [['x-api-key', 'b'.repeat(4_097)]] })).json.code).toBe(
      'auth.invalid_token',
    );
    expect(shown).toEqual([]);
  });

  test('Authorization counts where both headers are there', async () => {
    expect((await send({ headers: [bearer('other'), ['x-api-key', GOOD]] })).json.code).toBe(
      'auth.invalid_token',
    );
    expect(shown).toEqual(['other']);
  });
});

describe('headers that carry no token of ours: refused before the verifier', () => {
  const cases: [string, [string, string][], ErrorCode][] = [
    ['nothing', [], 'auth.missing_token'],
    ['a cookie', [['cookie', `access_token=${GOOD}`]], 'auth.missing_token'],
    ['a header of another name', [['access_token', GOOD]], 'auth.missing_token'],
    ['Proxy-Authorization', [['proxy-authorization', `Bearer ${GOOD}`]], 'auth.missing_token'],
    ['an empty Authorization', [['Authorization', '']], 'auth.invalid_token'],
    ['the scheme alone', [['Authorization', 'Bearer']], 'auth.invalid_token'],
    ['the scheme and spaces', [['Authorization', 'Bearer    ']], 'auth.invalid_token'],
    ['the token alone', [['Authorization', GOOD]], 'auth.invalid_token'],
    ['no space', [['Authorization', `Bearer${GOOD}`]], 'auth.invalid_token'],
    ['a tab', [['Authorization', `Bearer\t${GOOD}`]], 'auth.invalid_token'],
    ['two tokens', [['Authorization', `Bearer ${GOOD} ${GOOD}`]], 'auth.invalid_token'],
    ['a list', [['Authorization', `Bearer ${GOOD}, Bearer ${GOOD}`]], 'auth.invalid_token'],
    ['a token beyond ASCII', [['Authorization', `Bearer ${GOOD}\u00e9`]], 'auth.invalid_token'],
    ['Basic', [['Authorization', 'Basic dTpw']], 'auth.invalid_token'],
    ['Basic with our token', [['Authorization', `Basic ${GOOD}`]], 'auth.invalid_token'],
    ['Digest', [['Authorization', 'Digest username="u"']], 'auth.invalid_token'],
    ['DPoP', [['Authorization', `DPoP ${GOOD}`]], 'auth.invalid_token'],
    ['Negotiate', [['Authorization', 'Negotiate YII=']], 'auth.invalid_token'],
    ['an empty x-api-key', [['x-api-key', '']], 'auth.invalid_token'],
    [
      'two x-api-key',
      [
        ['x-api-key', GOOD],
        ['x-api-key', GOOD],
      ],
      'auth.invalid_token',
    ],
    ['x-api-key with a scheme', [['x-api-key', `Bearer ${GOOD}`]], 'auth.invalid_token'],
    [
      'an empty Authorization beside x-api-key',
      [
        ['Authorization', ''],
        ['x-api-key', GOOD],
      ],
      'auth.invalid_token',
    ],
    ['two Authorization', [bearer(GOOD), bearer('x')], 'request.invalid'],
    [
      'two Authorization in other cases',
      [bearer('x'), ['aUTHORIZATION', `Bearer ${GOOD}`]],
      'request.invalid',
    ],
    ['twice the same', [bearer(GOOD), bearer(GOOD)], 'request.invalid'],
    [
      'SigV4',
      [['Authorization', 'AWS4-HMAC-SHA256 Credential=AKIACANARY, Signature=00']],
      'auth.sigv4_not_supported',
    ],
    [
      'SigV4 in small letters',
      [['Authorization', 'aws4-hmac-sha256 Credential=AKIACANARY']],
      'auth.sigv4_not_supported',
    ],
    [
      'SigV4a',
      [['Authorization', 'AWS4-ECDSA-P256-SHA256 Credential=AKIACANARY']],
      'auth.sigv4_not_supported',
    ],
    [
      'SigV4 beside x-api-key',
      [
        ['Authorization', 'AWS4-HMAC-SHA256 Credential=AKIACANARY'],
        ['x-api-key', GOOD],
      ],
      'auth.sigv4_not_supported',
    ],
  ];
  test.each(cases)('%s', async (_name, headers, code) => {
    const answer = await send({ headers });
    expect(answer.json.code).toBe(code);
    expect(shown).toEqual([]);
    for (const sent of [GOOD, 'AKIACANARY', 'dTpw']) expect(answer.text).not.toContain(sent);
  });

  test('who signs is told what to set instead', async () => {
    const answer = await send({ headers: [['Authorization', 'AWS4-HMAC-SHA256 x']] });
    expect(answer.json.detail).toContain('AWS_BEARER_TOKEN_BEDROCK');
    expect(answer.json.detail).toContain('authSchemePreference');
  });
});

describe('a token in the query', () => {
  const cases = [
    `access_token=${GOOD}`,
    'access_token=',
    'access_token',
    `access_token[]=${GOOD}`,
    `access_token[0]=${GOOD}`,
    `access_token[a]=${GOOD}`,
    `access_token[a][b]=${GOOD}`,
    `a[access_token]=${GOOD}`,
    `a.access_token=${GOOD}`,
    `a=1&access_token=${GOOD}`,
    `a=1;access_token=${GOOD}`,
    `access_token=x&access_token=${GOOD}`,
    `%61ccess_token=${GOOD}`,
    `access%5Ftoken=${GOOD}`,
    `access_token%5B%5D=${GOOD}`,
    `ACCESS_TOKEN=${GOOD}`,
    `?access_token=${GOOD}`,
    `+access_token=${GOOD}`,
    `__proto__[access_token]=${GOOD}`,
    // A token of ours under another name is in the same logs.
    `token=${GOOD}`,
    `api_key=${GOOD}`,
    `a=Bearer%20${GOOD}`,
    mintToken('operator', 'live').text,
    `${GOOD}=1`,
    `next=https://h/%3Fk=${GOOD}`,
  ];
  test.each(cases)('?%s', async (query) => {
    for (const headers of [[], [bearer(GOOD)], [['x-api-key', GOOD] as [string, string]]]) {
      const answer = await send({ path: `/?${query}`, headers });
      expect(answer.json.code).toBe('auth.token_in_wrong_place');
      expect(answer.text).not.toContain(GOOD);
    }
    expect(shown).toEqual([]);
  });

  test.each(['my_access_token_count=1', 'nextToken=access', 'q=access_token', 'a', ''])(
    '%s is none',
    async (query) => {
      expect((await send({ path: `/?${query}`, headers: [bearer(GOOD)] })).json.principal).toEqual(principal);
      expect((await send({ path: `/?${query}` })).json.code).toBe('auth.missing_token');
    },
  );
});

describe('a token in the body', () => {
  const form = 'application/x-www-form-urlencoded';
  test.each([form, `${form}; charset=utf-8`, form.toUpperCase(), `${form} `])(
    'a form (%s) is refused, with or without one',
    async (type) => {
      for (const body of [`access_token=${GOOD}`, 'a=b', ''])
        for (const headers of [[], [bearer(GOOD)]]) {
          const answer = await send({ headers: [['content-type', type], ...headers], body });
          expect(answer.json.code).toBe('auth.token_in_wrong_place');
        }
      expect(shown).toEqual([]);
    },
  );

  test.each([
    ['JSON', 'application/json', JSON.stringify({ access_token: GOOD })],
    ['JSON with a list', 'application/json', JSON.stringify({ access_token: [GOOD] })],
    ['a form that says it is text', 'text/plain', `access_token=${GOOD}`],
  ])('%s that a parser has read is not looked at', async (_name, type, body) => {
    const headers: [string, string][] = [['content-type', type]];
    expect((await send({ headers, body })).json.code).toBe('auth.missing_token');
    expect(shown).toEqual([]);
    // passport-http-bearer by itself would answer 400 to a token in both places.
    expect((await send({ headers: [...headers, bearer(GOOD)], body })).json.principal).toEqual(principal);
    expect((await send({ headers: [...headers, bearer('other')], body })).json.code).toBe(
      'auth.invalid_token',
    );
    expect(shown).toEqual([GOOD, 'other']);
  });
});

describe('what the verifier says', () => {
  test('no principal: one answer for every reason', async () => {
    const answers = await Promise.all(
      ['other', `${GOOD}x`, 'a.b.c', '[object', '__proto__'].map((token) =>
        send({ headers: [bearer(token)] }),
      ),
    );
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    expect(answers[0]?.json.code).toBe('auth.invalid_token');
    expect(answers[0]?.headers['www-authenticate']).toBeUndefined(); // problem.ts writes it, for every 401 alike
  });

  test('an error is handed on as it is, and is no refusal', async () => {
    expect((await send({ headers: [bearer('database-away')] })).json.code).toBe('ledger.unavailable');
    expect((await send({ headers: [bearer('broken')] })).status).toBe(500);
  });
});
