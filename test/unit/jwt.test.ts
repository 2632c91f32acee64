import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import type { CryptoKey, JWTPayload } from 'jose';
import { newJwtVerifier } from '../../src/auth/jwt.ts';
import type { JwtOptions } from '../../src/auth/jwt.ts';
import { Secret } from '../../src/domain/secret.ts';

const SECRET = 'a shared secret of at least 32 characters';
const now = Date.parse('2026-11-21T12:00:00Z');
const seconds = now / 1_000;
const base: JwtOptions = {
  algorithm: 'HS256',
  issuer: 'https://issuer.example',
  audience: 'merchant-bedrock',
  merchantClaim: 'merchant_id',
  scopeClaim: 'scope',
  secret: new Secret(SECRET),
  clock: { now: () => now },
};
const claims: JWTPayload = {
  iss: base.issuer,
  aud: base.audience,
  sub: 'user-1',
  iat: seconds - 60,
  exp: seconds + 600,
  merchant_id: 'acme',
  scope: 'invoke usage:read root',
};

function hs256(
  change: Record<string, unknown> = {},
  header: Record<string, unknown> = {},
  secret = SECRET,
): Promise<string> {
  const payload = Object.fromEntries(
    Object.entries({ ...claims, ...change }).filter(([, value]) => value !== undefined),
  );
  return new SignJWT(payload)
    .setProtectedHeader({ alg: 'HS256', ...header })
    .sign(new TextEncoder().encode(secret), { crit: {} });
}

describe('HS256', () => {
  const verify = newJwtVerifier(base);

  test('a good token is its merchant, with the scopes that exist', async () => {
    expect(await verify(await hs256())).toEqual({
      kind: 'merchant',
      merchantId: 'acme',
      subject: 'jwt:user-1',
      scopes: ['invoke', 'usage:read'],
    });
    expect(await verify(await hs256({ scope: ['audit:read', 7] }))).toMatchObject({ scopes: ['audit:read'] });
    expect(await verify(await hs256({ scope: undefined }))).toMatchObject({ scopes: [] });
    expect(await verify(await hs256({ exp: seconds - 20 }))).toBeDefined();
  });

  const bad: [string, () => Promise<string> | string][] = [
    ['another secret', () => hs256({}, {}, 'another secret of at least 32 characters')],
    ['no expiry', () => hs256({ exp: undefined })],
    ['expired beyond the tolerance', () => hs256({ exp: seconds - 31 })],
    ['no issue time', () => hs256({ iat: undefined })],
    ['issued in the future', () => hs256({ iat: seconds + 300 })],
    ['older than an hour, although not expired', () => hs256({ iat: seconds - 3_700 })],
    ['not yet valid', () => hs256({ nbf: seconds + 300 })],
    ['another issuer', () => hs256({ iss: 'https://evil.example' })],
    ['no issuer', () => hs256({ iss: undefined })],
    ['another audience', () => hs256({ aud: 'somebody-else' })],
    ['no audience', () => hs256({ aud: undefined })],
    ['no subject', () => hs256({ sub: undefined })],
    ['an empty subject', () => hs256({ sub: '' })],
    ['a subject with a line feed', () => hs256({ sub: 'user\n1' })],
    ['a subject of 200 characters', () => hs256({ sub: 'x'.repeat(200) })],
    ['no merchant', () => hs256({ merchant_id: undefined })],
    ['a merchant that is no id', () => hs256({ merchant_id: '../other' })],
    ['the operators chain as merchant', () => hs256({ merchant_id: '~system' })],
    ['a list of merchants', () => hs256({ merchant_id: ['acme', 'other'] })],
    ['alg none', () => new UnsecuredJWT(claims).encode()],
    [
      'alg none in capitals',
      async () =>
        `${Buffer.from('{"alg":"NONE"}').toString('base64url')}.${(await hs256()).split('.')[1] ?? ''}.`,
    ],
    ['a key of its own (jwk)', () => hs256({}, { jwk: { kty: 'oct', k: 'AAAA' } })],
    ['a place for its key (jku)', () => hs256({}, { jku: 'https://evil.example/keys' })],
    ['a certificate (x5c)', () => hs256({}, { x5c: ['AAAA'] })],
    ['a place for its certificate (x5u)', () => hs256({}, { x5u: 'https://evil.example/cert' })],
    ['a key id that is a path', () => hs256({}, { kid: '../../dev/null' })],
    ['a key id with a quote', () => hs256({}, { kid: "' OR 1=1" })],
    [
      'another algorithm of the same family',
      () =>
        new SignJWT(claims)
          .setProtectedHeader({ alg: 'HS512' })
          .sign(new TextEncoder().encode(SECRET.repeat(2))),
    ],
    ['no signature', async () => `${(await hs256()).split('.').slice(0, 2).join('.')}.`],
    [
      'a changed payload',
      async () => {
        const [header, , signature] = (await hs256()).split('.');
        return [
          header,
          Buffer.from(JSON.stringify({ ...claims, merchant_id: 'other' })).toString('base64url'),
          signature,
        ].join('.');
      },
    ],
    ['garbage', () => 'a.b.c'],
    ['nothing', () => ''],
    ['dots', () => '..'],
  ];
  test.each(bad)('%s: not accepted', async (_name, make) => {
    expect(await verify(await make())).toBeUndefined();
  });
});

describe('a key set by URL', () => {
  let keys: { publicKey: CryptoKey; privateKey: CryptoKey };
  let url: string;
  let fetches = 0;
  let answer: () => { status: number; body: string; location?: string };
  const server = createServer((_req, res) => {
    fetches += 1;
    const { status, body, location } = answer();
    res.writeHead(status, { 'content-type': 'application/json', ...(location && { location }) }).end(body);
  });

  beforeAll(async () => {
    keys = await generateKeyPair('ES256');
    const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' };
    answer = () => ({ status: 200, body: JSON.stringify({ keys: [jwk] }) });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}/keys`;
  });
  afterAll(() => {
    server.close();
  });

  const es256 = (kid = 'k1') =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid }).sign(keys.privateKey);
  const newVerifier = () => {
    const { secret: _secret, ...rest } = base;
    return newJwtVerifier({ ...rest, algorithm: 'ES256', jwksUrl: url });
  };

  test('a good token is accepted; an unknown key id is not, and a flood of them is one fetch', async () => {
    const verify = newVerifier();
    expect(await verify(await es256())).toMatchObject({ merchantId: 'acme' });
    fetches = 0;
    for (let index = 0; index < 50; index += 1)
      expect(await verify(await es256(`unknown-${String(index)}`))).toBeUndefined();
    expect(fetches).toBeLessThanOrEqual(1);
  });

  test('a token signed with the public key as an HMAC secret is not accepted', async () => {
    const jwk = JSON.stringify(await exportJWK(keys.publicKey));
    const confused = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256', kid: 'k1' })
      .sign(new TextEncoder().encode(jwk.padEnd(32)));
    expect(await newVerifier()(confused)).toBeUndefined();
  });

  test.each([
    ['is away', () => ({ status: 503, body: '' })],
    ['redirects', () => ({ status: 302, body: '', location: 'http://127.0.0.1:1/evil' })],
    ['is ten megabytes', () => ({ status: 200, body: `{"keys":[],"pad":"${'x'.repeat(10_000_000)}"}` })],
    ['is no JSON', () => ({ status: 200, body: '<html>' })],
  ])('when the key set %s nothing is accepted', async (_name, broken) => {
    const good = answer;
    answer = broken;
    expect(await newVerifier()(await es256())).toBeUndefined();
    answer = good;
  });
});
