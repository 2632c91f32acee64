import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import type { CryptoKey, JWK } from 'jose';
import { newBearerVerifier } from '../../src/auth/bearer.ts';
import { FailureBudget } from '../../src/auth/failure-budget.ts';
import { remoteKeys } from '../../src/auth/jwks-out.ts';
import { newJwtVerifier } from '../../src/auth/jwt.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { Principal } from '../../src/domain/principal.ts';

const START = Date.parse('2026-11-21T12:00:00Z');
const [SECOND_MS, MINUTE_MS] = [1_000, 60_000];
const PER_ADDRESS = 30;
const API_KEY = 'an API key that nobody has seen before';
const PERSON: Principal = { kind: 'operator', subject: 'operator:x', keyId: 'x' as never, scopes: [] };

let privateKey: CryptoKey;
let jwk: JWK;
let url: string;
let answer: (res: ServerResponse) => void;
let fetches = 0;
const server = createServer((_req, res) => {
  fetches += 1;
  answer(res);
});

const status = (code: number, body: string) => (res: ServerResponse) => void res.writeHead(code).end(body);
const well = (res: ServerResponse): void => void res.end(JSON.stringify({ keys: [jwk] }));
const down = (res: ServerResponse): void => void res.destroy();
const silent = (): void => undefined;

beforeAll(async () => {
  const pair = await generateKeyPair('ES256');
  privateKey = pair.privateKey;
  jwk = { ...(await exportJWK(pair.publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}/keys`;
});
beforeEach(() => {
  answer = well;
  fetches = 0;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

/** Who is calling, as a process says it that has just started. Time passes when a test says so. */
function setUp() {
  const clock = { time: START, now: () => clock.time };
  const told: string[] = [];
  const keys = remoteKeys(url, { clock, onAway: () => told.push('away'), onBack: () => told.push('back') });
  const jwt = newJwtVerifier({
    algorithm: 'ES256',
    issuer: 'https://issuer.example',
    audience: 'merchant-bedrock',
    merchantClaim: 'merchant_id',
    scopeClaim: 'scope',
    clock,
    keys,
  });
  const found = (token: string) => Promise.resolve(token === API_KEY ? PERSON : undefined);
  const verify = newBearerVerifier({
    jwt,
    devTokens: false,
    failures: new FailureBudget({ clock, perAddressMax: PER_ADDRESS, perKeyMax: 20 }),
    apiKeys: { inMemory: () => ({ key: 'x', seems: 'unknown' }), verify: found, verifyRemembered: found },
  });
  const send = (token: string): Promise<string> =>
    verify(token, { remembered: false, address: '192.0.2.1' }).then(
      (principal) => (principal === undefined ? '401' : 'in'),
      (error: unknown) => (error instanceof ServiceError ? error.code : 'another error'),
    );
  const sign = (kid = 'k1') =>
    new SignJWT({ merchant_id: 'acme' })
      .setProtectedHeader({ alg: 'ES256', kid })
      .setIssuer('https://issuer.example')
      .setAudience('merchant-bedrock')
      .setSubject('user-1')
      .setIssuedAt(clock.time / SECOND_MS)
      .setExpirationTime(clock.time / SECOND_MS + 600)
      .sign(privateKey);
  return { clock, told, send, sign };
}

describe('an issuer whose keys were never fetched', () => {
  test.each([
    ['is down', down],
    ['does not answer', silent],
    ['answers 500', status(500, 'x')],
    ['answers garbage', status(200, '<html>')],
    ['answers what is no key set', status(200, '{"keys":5}')],
    ['answers more than a key set can be', status(200, 'x'.repeat(300_000))],
  ])('%s: no failure of anybody, and told once', async (_name, broken) => {
    const { clock, told, send, sign } = setUp();
    const token = await sign();
    answer = broken;
    for (let n = 0; n < 2 * PER_ADDRESS; n += 1) expect(await send(token)).toBe('auth.unavailable');
    expect(await send(API_KEY)).toBe('in');
    expect([fetches, told]).toEqual([1, ['away']]);
    answer = well;
    clock.time += 5 * SECOND_MS;
    expect(await send(token)).toBe('in');
    expect(told).toEqual(['away', 'back']);
  });

  test('the second and third attempt of an outage tell nobody', async () => {
    const { clock, told, send, sign } = setUp();
    answer = down;
    for (let n = 0; n < 3; n += 1) {
      expect(await send(await sign())).toBe('auth.unavailable');
      clock.time += 5 * SECOND_MS;
    }
    expect([fetches, told]).toEqual([3, ['away']]);
  });
});

describe('an issuer that is well', () => {
  test('a token of no key of its is refused and counted, and is a fetch once in half a minute at most', async () => {
    const { clock, told, send, sign } = setUp();
    expect(await send(await sign())).toBe('in');
    for (const expected of [1, 2]) {
      const answers: string[] = [];
      for (let n = 0; n < 20; n += 1) {
        answers.push(await send(await sign(`unknown-${String(n)}`)));
        // Beyond the pause between any two fetches.
        clock.time += 0.5 * SECOND_MS;
      }
      expect([new Set(answers), fetches]).toEqual([new Set(['401']), expected]);
      clock.time += 30 * SECOND_MS;
    }
    for (let n = 0; n < PER_ADDRESS; n += 1) await send(await sign('unknown'));
    expect(await send(API_KEY)).toBe('auth.too_many_failures');
    expect([await send(await sign()), told]).toEqual(['in', []]);
  });

  test('a token that is wrong in another way is refused and counted', async () => {
    const { send, sign } = setUp();
    const forged = (await sign()).replace(/[^.]+$/, 'A'.repeat(86));
    for (let n = 0; n < PER_ADDRESS; n += 1) expect(await send(forged)).toBe('401');
    expect(await send(forged)).toBe('auth.too_many_failures');
  });

  test('a key that it added is fetched when a token of it comes', async () => {
    const { clock, send, sign } = setUp();
    expect(await send(await sign())).toBe('in');
    answer = (res) => void res.end(JSON.stringify({ keys: [jwk, { ...jwk, kid: 'k2' }] }));
    clock.time += 31 * SECOND_MS;
    expect([await send(await sign('k2')), fetches]).toEqual(['in', 2]);
  });

  test('a key that it removed is good for nothing ten minutes later', async () => {
    const { clock, send, sign } = setUp();
    expect(await send(await sign())).toBe('in');
    answer = status(200, '{"keys":[]}');
    clock.time += 10 * MINUTE_MS;
    expect(await send(await sign())).toBe('401');
  });
});

describe('an outage after the keys were fetched', () => {
  test('they serve for an hour; of a key that is not among them nobody can say anything, and what is wrong stays wrong', async () => {
    const { clock, told, send, sign } = setUp();
    expect(await send(await sign())).toBe('in');
    answer = down;
    for (const minutes of [1, 11, 59]) {
      clock.time = START + minutes * MINUTE_MS;
      expect(await send(await sign())).toBe('in');
      expect(await send(await sign('added-since'))).toBe('auth.unavailable');
      expect(await send((await sign()).replace(/[^.]+$/, 'A'.repeat(86)))).toBe('401');
    }
    clock.time = START + 60 * MINUTE_MS;
    expect(await send(await sign())).toBe('auth.unavailable');
    expect(told).toEqual(['away']);
    answer = well;
    clock.time += 5 * SECOND_MS;
    expect(await send(await sign())).toBe('in');
    expect(told).toEqual(['away', 'back']);
  });

  test('who has a known key does not wait again for an issuer that was silent a moment ago', async () => {
    const { clock, send, sign } = setUp();
    expect(await send(await sign())).toBe('in');
    answer = status(503, '');
    clock.time += 11 * MINUTE_MS;
    expect(await send(await sign())).toBe('in');
    let asked = (): void => undefined;
    const again = new Promise<void>((resolve) => (asked = resolve));
    let end = (): void => undefined;
    answer = (res) => {
      asked();
      end = () => void res.end(JSON.stringify({ keys: [] }));
    };
    clock.time += 5 * SECOND_MS;
    // The issuer was asked, has not answered, and will say that the key is gone.
    expect(await send(await sign())).toBe('in');
    await again;
    end();
    expect(await send(await sign('unknown'))).toBe('401');
    expect(await send(await sign())).toBe('401');
  });
});
