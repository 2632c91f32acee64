import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { exportJWK, exportSPKI, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import type { CryptoKey, JWTPayload } from 'jose';
import { remoteKeys } from '../../src/auth/jwks-out.ts';
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
/** Of a key set, where it does not matter who hears of its outages. */
const quiet = { clock: base.clock, onAway: () => undefined, onBack: () => undefined };
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

const encoded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** The token with its signature replaced by a real one under `secret`. */
function withSignature(token: string, secret: string): string {
  const signed = token.split('.').slice(0, 2).join('.');
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

describe('HS256', () => {
  const verify = newJwtVerifier(base);

  test('a good token is its merchant, with the scopes that exist', async () => {
    expect(await verify(await hs256())).toEqual({
      kind: 'merchant',
      merchantId: 'acme',
      subject: 'jwt:user-1',
      scopes: ['invoke', 'usage:read'],
      // With what clocks may differ, as it is taken for so long.
      expiresAtMs: (seconds + 600 + 30) * 1_000,
    });
    expect(await verify(await hs256({ exp: seconds + 7_200 }))).toMatchObject({
      // It was issued a minute ago, and lives for an hour at most.
      expiresAtMs: (seconds - 60 + 3_600 + 30) * 1_000,
    });
    expect(await verify(await hs256({ scope: ['audit:read', 7] }))).toMatchObject({ scopes: ['audit:read'] });
    expect(await verify(await hs256({ scope: undefined }))).toMatchObject({ scopes: [] });
    expect(await verify(await hs256({ exp: seconds - 20 }))).toBeDefined();
    expect(await verify(await hs256({ aud: ['a', base.audience] }))).toBeDefined();
    expect(await verify(await hs256({}, { kid: 'k1', typ: 'at+jwt' }))).toBeDefined();
    expect(await verify(await hs256({ scope: 'ops:usage:read invoke' }))).toMatchObject({
      kind: 'merchant',
      scopes: ['invoke'],
    });
    // What the vectors below change is a token like this one.
    expect(await verify(withSignature(await hs256(), SECRET))).toBeDefined();
  });

  test('where a typ is configured, no other is accepted', async () => {
    const strict = newJwtVerifier({ ...base, typ: 'at+jwt' });
    expect(await strict(await hs256({}, { typ: 'at+jwt' }))).toBeDefined();
    expect(await strict(await hs256({}, { typ: 'application/at+jwt' }))).toBeDefined();
    for (const typ of ['JWT', 'logout+jwt', 'secevent+jwt', ''])
      expect(await strict(await hs256({}, { typ }))).toBeUndefined();
    expect(await strict(await hs256())).toBeUndefined();
  });

  test('claims by other names, where those are configured', async () => {
    const renamed = newJwtVerifier({ ...base, merchantClaim: 'https://x.example/tenant', scopeClaim: 'scp' });
    expect(await renamed(await hs256())).toBeUndefined();
    const token = await hs256({ 'https://x.example/tenant': 'other', scp: ['usage:read'] });
    expect(await renamed(token)).toMatchObject({ merchantId: 'other', scopes: ['usage:read'] });
  });

  test('options that could verify nothing safely are refused at once', () => {
    const { secret: _secret, ...rest } = base;
    expect(() => newJwtVerifier(rest)).toThrow(/needs a secret/);
    expect(() => newJwtVerifier({ ...rest, secret: new Secret('x'.repeat(31)) })).toThrow(/32 bytes/);
    expect(() => newJwtVerifier({ ...rest, secret: new Secret('é'.repeat(16)) })).not.toThrow();
    expect(() => newJwtVerifier({ ...rest, algorithm: 'RS256' })).toThrow(/JWKS/);
    for (const url of [
      'http://issuer.example/keys',
      'http://127.0.0.1.evil.example/keys',
      'http://169.254.169.254/latest',
      'ftp://127.0.0.1/keys',
      'file:///etc/passwd',
      'data:application/json,{"keys":[]}',
    ])
      expect(() => remoteKeys(url, quiet)).toThrow(/https/);
    for (const url of ['https://issuer.example/keys', 'http://localhost:1/keys', 'http://[::1]:1/keys'])
      expect(() => remoteKeys(url, quiet)).not.toThrow();
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
    ['a list of one merchant', () => hs256({ merchant_id: ['acme'] })],
    ['a merchant with a line feed', () => hs256({ merchant_id: 'acme\n' })],
    ['a subject that is a number', () => hs256({ sub: 5 })],
    ['a subject that is a list', () => hs256({ sub: ['user-1'] })],
    ['an expiry that is text', () => hs256({ exp: String(seconds + 600) })],
    ['an issue time that is text', () => hs256({ iat: String(seconds) })],
    ['a begin that is text', () => hs256({ nbf: 'now' })],
    ['an issuer with a slash too many', () => hs256({ iss: `${base.issuer}/` })],
    ['a list of issuers', () => hs256({ iss: [base.issuer] })],
    ['audiences without ours', () => hs256({ aud: ['a', 'b'] })],
    ['an audience that begins like ours', () => hs256({ aud: 'merchant-bedrock-2' })],
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
    ['a key id that is a URL', () => hs256({}, { kid: 'https://evil.example/key' })],
    ['a key id of 200 characters', () => hs256({}, { kid: 'k'.repeat(200) })],
    ['an empty key id', () => hs256({}, { kid: '' })],
    ['a key id that is a number', () => hs256({}, { kid: 5 })],
    ['a key id that is a list', () => hs256({}, { kid: ['k1'] })],
    [
      'a critical extension',
      () => withSignature(`${encoded({ alg: 'HS256', crit: ['x'], x: 1 })}.${encoded(claims)}.`, SECRET),
    ],
    [
      'the extension that jose knows',
      () =>
        withSignature(`${encoded({ alg: 'HS256', crit: ['b64'], b64: true })}.${encoded(claims)}.`, SECRET),
    ],
    [
      'alg none with a good signature',
      async () => {
        const [, payload, signature] = (await hs256()).split('.');
        return `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload ?? ''}.${signature ?? ''}`;
      },
    ],
    [
      'no alg',
      async () => {
        const [, payload, signature] = (await hs256()).split('.');
        return `${Buffer.from('{}').toString('base64url')}.${payload ?? ''}.${signature ?? ''}`;
      },
    ],
    ['signed with an empty secret', async () => withSignature(await hs256(), '')],
    ['a signature that is cut off', async () => (await hs256()).slice(0, -2)],
    ['a signature with more after it', async () => `${await hs256()}AAAA`],
    ['four parts', async () => `${await hs256()}.AAAA`],
    ['white space around it', async () => ` ${await hs256()} `],
    ['a payload that is a list', () => withSignature(`${encoded({ alg: 'HS256' })}.${encoded([])}.`, SECRET)],
    [
      'a payload that is no JSON',
      () => withSignature(`${encoded({ alg: 'HS256' })}.${Buffer.from('{').toString('base64url')}.`, SECRET),
    ],
    ['a header that is no JSON', async () => `e30x.${(await hs256()).split('.').slice(1).join('.')}`],
    ['a very long text', () => `${'a'.repeat(100_000)}.${'b'.repeat(100_000)}.c`],
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
  test('the corpus has at least forty vectors', () => {
    expect(bad.length).toBeGreaterThanOrEqual(40);
  });

  test.each(bad)('%s: not accepted', async (_name, make) => {
    expect(await verify(await make())).toBeUndefined();
  });
});

describe('a key set by URL', () => {
  let keys: { publicKey: CryptoKey; privateKey: CryptoKey };
  let url: string;
  let fetches = 0;
  interface Reply {
    status: number;
    body: string;
    location?: string;
  }
  let answer: () => Reply;
  let goodAnswer: Reply;
  /** Where a redirect leads: a key set that would do. */
  const ELSEWHERE = '/elsewhere';
  const server = createServer((req, res) => {
    fetches += 1;
    const { status, body, location } = req.url === ELSEWHERE ? goodAnswer : answer();
    res.writeHead(status, { 'content-type': 'application/json', ...(location && { location }) }).end(body);
  });

  beforeAll(async () => {
    keys = await generateKeyPair('ES256');
    const jwk = { ...(await exportJWK(keys.publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' };
    goodAnswer = { status: 200, body: JSON.stringify({ keys: [jwk] }) };
    answer = () => goodAnswer;
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}/keys`;
  });
  afterAll(() => {
    server.close();
  });

  const es256 = (kid = 'k1') =>
    new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid }).sign(keys.privateKey);
  const newVerifier = (clock = base.clock) => {
    const { secret: _secret, ...rest } = base;
    return newJwtVerifier({ ...rest, algorithm: 'ES256', keys: remoteKeys(url, { ...quiet, clock }), clock });
  };

  test('a good token is accepted; an unknown key id is not, and a flood of them is no fetch', async () => {
    let time = now;
    const verify = newVerifier({ now: () => time });
    expect(await verify(await es256())).toMatchObject({ merchantId: 'acme' });
    fetches = 0;
    for (let index = 0; index < 50; index += 1) {
      // Beyond the pause between any two fetches: what holds here is the half minute after a success.
      time += 500;
      expect(await verify(await es256(`unknown-${String(index)}`))).toBeUndefined();
    }
    expect(fetches).toBe(0);
    expect(await verify(await es256())).toBeDefined();
  });

  test('a token signed with the public key as an HMAC secret is not accepted', async () => {
    const verify = newVerifier();
    expect(await verify(await es256())).toBeDefined();
    const jwk = await exportJWK(keys.publicKey);
    for (const secret of [JSON.stringify(jwk), jwk.x ?? '', await exportSPKI(keys.publicKey)]) {
      const confused = await new SignJWT(claims)
        .setProtectedHeader({ alg: 'HS256', kid: 'k1' })
        .sign(new TextEncoder().encode(secret.padEnd(32)));
      expect(await verify(confused)).toBeUndefined();
    }
  });

  test('a secret in a key set, or another algorithm with a key of its own there, opens nothing', async () => {
    const good = answer;
    const rsa = await generateKeyPair('RS256');
    const set = {
      keys: [
        { kty: 'oct', kid: 'oct', alg: 'HS256', k: Buffer.from(SECRET).toString('base64url') },
        { ...(await exportJWK(rsa.publicKey)), kid: 'rsa', alg: 'RS256' },
      ],
    };
    answer = () => ({ status: 200, body: JSON.stringify(set) });
    const verify = newVerifier();
    expect(await verify(await hs256({}, { kid: 'oct' }))).toBeUndefined();
    const rs256 = new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'rsa' });
    expect(await verify(await rs256.sign(rsa.privateKey))).toBeUndefined();
    answer = good;
  });

  test('another key under the same id is not accepted', async () => {
    const theirs = await generateKeyPair('ES256');
    const forged = new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: 'k1' });
    expect(await newVerifier()(await forged.sign(theirs.privateKey))).toBeUndefined();
  });

  test.each([
    ['is away', () => ({ status: 503, body: '' })],
    ['redirects', () => ({ status: 302, body: '', location: ELSEWHERE })],
    ['is ten megabytes', () => ({ status: 200, body: `{"keys":[],"pad":"${'x'.repeat(10_000_000)}"}` })],
    ['is no JSON', () => ({ status: 200, body: '<html>' })],
    ['is no key set', () => ({ status: 200, body: '{}' })],
    ['is a key set with a status of its own', () => ({ ...answer(), status: 203 })],
  ])(
    'when the key set %s nobody can say whether a token is good, and it is asked for once in five seconds',
    async (_name, broken) => {
      const good = answer;
      const bad = broken();
      answer = () => bad;
      let time = now;
      const verify = newVerifier({ now: () => time });
      const token = await es256();
      fetches = 0;
      const away = { code: 'auth.unavailable', options: { retryAfterSeconds: 5 } };
      for (let index = 0; index < 50; index += 1) await expect(verify(token)).rejects.toMatchObject(away);
      await Promise.allSettled(Array.from({ length: 50 }, () => verify(token)));
      expect(fetches).toBe(1);
      time += 4_999;
      await expect(verify(token)).rejects.toMatchObject(away);
      expect(fetches).toBe(1);

      answer = good;
      time += 1;
      expect(await verify(token)).toBeDefined();
      expect(fetches).toBe(2);
    },
  );
});
