import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { EncryptJWT, UnsecuredJWT, SignJWT } from 'jose';
import { Sessions } from '../../src/credentials/sessions.ts';
import type { SessionContents } from '../../src/credentials/sessions.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ApiKeyId, MerchantId } from '../../src/domain/ids.ts';
import type { MerchantPrincipal } from '../../src/domain/principal.ts';
import { Secret } from '../../src/domain/secret.ts';

const KEY = Buffer.alloc(32, 1);
const SECRET = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';
const TOKEN = 'IQoJb3JpZ2luX2VjEXAMPLETOKEN==';
const START = Date.UTC(2026, 10, 21, 12);

const caller = principal('merchant-a', 'AAAAAAAAAAAA');
const contents: SessionContents = {
  accessKey: {
    kind: 'access-key',
    accessKeyId: 'ASIAIOSFODNN7EXAMPLE',
    secretAccessKey: new Secret(SECRET),
    sessionToken: new Secret(TOKEN),
  },
  region: 'us-east-1',
  accountId: '111122223333',
  defaults: { modelId: 'amazon.nova-micro-v1:0', temperature: 0.5, maxTokens: 100 },
};

describe('a session', () => {
  test('opens for the caller it was made for', async () => {
    const { sessions } = setUp();
    const { session, expiresAt } = await sessions.seal(caller, contents);
    expect(expiresAt.toISOString()).toBe('2026-11-21T12:15:00.000Z');
    const opened = await sessions.open(new Secret(session), caller);
    expect(opened).toEqual(contents);
    expect(opened.accessKey.secretAccessKey.reveal()).toBe(SECRET);
    expect(opened.accessKey.sessionToken?.reveal()).toBe(TOKEN);
  });

  test('works without session token and defaults, too', async () => {
    const { sessions } = setUp();
    const accessKey = { ...contents.accessKey };
    delete accessKey.sessionToken;
    const bare = { ...contents, accessKey, defaults: {} };
    const { session } = await sessions.seal(caller, bare);
    expect(await sessions.open(new Secret(session), caller)).toEqual(bare);
  });

  test('shows nothing of what is in it', async () => {
    const { sessions } = setUp();
    const { session } = await sessions.seal(caller, contents);
    const parts = session.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'));
    expect(JSON.parse(parts[0] ?? '')).toEqual({
      alg: 'dir',
      enc: 'A256GCM',
      kid: expect.stringMatching(/^[\w-]{12}$/) as unknown,
      typ: 'mbk-session+jwt',
    });
    for (const hidden of [SECRET, TOKEN, 'ASIA', 'merchant-a', '111122223333', 'AAAAAAAAAAAA'])
      for (const text of [session, ...parts]) expect(text).not.toContain(hidden);
  });

  test('is bound to the subject where the caller has no API key', async () => {
    const { sessions } = setUp();
    const jwt = { ...principal('merchant-a'), subject: 'jwt:alice' };
    const { session } = await sessions.seal(jwt, contents);
    await expect(sessions.open(new Secret(session), jwt)).resolves.toEqual(contents);
    await expectInvalid(sessions, session, { ...jwt, subject: 'jwt:bob' });
    // An API key whose id is somebody's subject is not that somebody.
    await expectInvalid(sessions, session, { ...jwt, apiKeyId: 'alice' as ApiKeyId });
  });

  test('outlives a change of keys while the previous one is known', async () => {
    const clock = { now: () => START };
    const before = new Sessions({ key: new Secret(KEY), clock });
    const next = new Secret(Buffer.alloc(32, 2));
    const { session } = await before.seal(caller, contents);
    const after = new Sessions({ key: next, previousKeys: [new Secret(KEY)], clock });
    await expect(after.open(new Secret(session), caller)).resolves.toEqual(contents);
    const { session: newer } = await after.seal(caller, contents);
    await expectInvalid(before, newer, caller);
    await expectInvalid(new Sessions({ key: next, clock }), session, caller);
  });
});

describe('every session that is not right gets the same answer', () => {
  test('expired, to the second', async () => {
    const { sessions, clock } = setUp();
    const { session } = await sessions.seal(caller, contents);
    clock.ms = START + 15 * 60_000 - 1;
    await expect(sessions.open(new Secret(session), caller)).resolves.toEqual(contents);
    clock.ms = START + 15 * 60_000;
    await expectInvalid(sessions, session, caller);
  });

  test('of another merchant, or of another API key of the same one', async () => {
    const { sessions } = setUp();
    const { session } = await sessions.seal(caller, contents);
    await expectInvalid(sessions, session, principal('merchant-b', 'AAAAAAAAAAAA'));
    await expectInvalid(sessions, session, principal('merchant-a', 'BBBBBBBBBBBB'));
    await expectInvalid(sessions, session, principal('merchant-a'));
  });

  test('altered in any character, cut anywhere, or with more at its end', async () => {
    const { sessions } = setUp();
    const { session } = await sessions.seal(caller, contents);
    const other = (character: string) => (character === 'A' ? 'B' : 'A');
    for (let at = 0; at < session.length; at += 7) {
      const altered = session.slice(0, at) + other(session.charAt(at)) + session.slice(at + 1);
      await expectInvalid(sessions, altered, caller);
      await expectInvalid(sessions, session.slice(0, at), caller);
    }
    await expectInvalid(sessions, `${session}AAAA`, caller);
    await expectInvalid(sessions, `${session}.AAAA`, caller);
  });

  test('garbage, and more than 8 KiB', async () => {
    const { sessions } = setUp();
    const huge = 'A'.repeat(8_193);
    for (const text of ['', '.', '....', 'a.b.c.d.e', huge, randomBytes(200).toString('base64url')])
      await expectInvalid(sessions, text, caller);
  });

  test('made with another key, or under our key by another recipe', async () => {
    const { sessions } = setUp();
    const strange = new Sessions({ key: new Secret(Buffer.alloc(32, 9)), clock: { now: () => START } });
    const { session } = await strange.seal(caller, contents);
    await expectInvalid(sessions, session, caller);

    const genuine = (await sessions.seal(caller, contents)).session;
    const { kid } = JSON.parse(Buffer.from(genuine.split('.')[0] ?? '', 'base64url').toString()) as {
      kid: string;
    };
    const claims = {
      merchant: 'merchant-a',
      bearer: 'api-key:AAAAAAAAAAAA',
      accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
      secretAccessKey: SECRET,
      region: 'us-east-1',
      accountId: '111122223333',
      defaults: {},
    };
    const exp = START / 1_000 + 60;
    const header = { alg: 'dir', enc: 'A256GCM', kid, typ: 'mbk-session+jwt' } as const;
    const forge = (payload: object, protectedHeader: object = header) =>
      new EncryptJWT({ ...payload }).setProtectedHeader(protectedHeader as typeof header).encrypt(KEY);

    // The recipe itself works, so that each change below is what is refused.
    await expect(sessions.open(new Secret(await forge({ ...claims, exp })), caller)).resolves.toBeDefined();
    await expectInvalid(sessions, await forge(claims), caller);
    await expectInvalid(sessions, await forge({ ...claims, exp, admin: true }), caller);
    await expectInvalid(sessions, await forge({ ...claims, exp, region: 7 }), caller);
    await expectInvalid(sessions, await forge({ ...claims, exp }, { ...header, typ: 'JWT' }), caller);
    await expectInvalid(sessions, await forge({ ...claims, exp }, { ...header, kid: 'other' }), caller);
    await expectInvalid(sessions, await forge({ ...claims, exp }, { ...header, zip: 'DEF' }), caller);
    const other = { ...header, enc: 'A128CBC-HS256' }; // takes a key of the same length
    await expectInvalid(sessions, await forge({ ...claims, exp }, other), caller);
    await expectInvalid(sessions, new UnsecuredJWT({ ...claims, exp }).encode(), caller);
    const signed = await new SignJWT({ ...claims, exp }).setProtectedHeader({ alg: 'HS256', kid }).sign(KEY);
    await expectInvalid(sessions, signed, caller);
  });
});

test('a key of another size is refused when the service is built', () => {
  const clock = { now: () => START };
  expect(() => new Sessions({ key: new Secret(Buffer.alloc(16)), clock })).toThrow('32 bytes');
  expect(
    () => new Sessions({ key: new Secret(KEY), previousKeys: [new Secret(Buffer.alloc(0))], clock }),
  ).toThrow('32 bytes');
});

test('credentials that are too long for a session are refused, not cut', async () => {
  const { sessions } = setUp();
  const accessKey = { ...contents.accessKey, sessionToken: new Secret('x'.repeat(8_000)) };
  await expect(sessions.seal(caller, { ...contents, accessKey })).rejects.toThrow('request.too_large');
});

function setUp() {
  const clock = { ms: START, now: (): number => clock.ms };
  return { clock, sessions: new Sessions({ key: new Secret(KEY), clock }) };
}

function principal(merchantId: string, apiKeyId?: string): MerchantPrincipal {
  return {
    kind: 'merchant',
    merchantId: merchantId as MerchantId,
    subject: apiKeyId === undefined ? 'jwt:someone' : `api-key:${apiKeyId}`,
    scopes: ['invoke'],
    ...(apiKeyId !== undefined && { apiKeyId: apiKeyId as ApiKeyId }),
  };
}

const answers = new Set<string>();

async function expectInvalid(sessions: Sessions, session: string, who: MerchantPrincipal): Promise<void> {
  const error: unknown = await sessions.open(new Secret(session), who).then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ServiceError);
  const { code, detail, options } = error as ServiceError;
  expect(code).toBe('session.invalid');
  answers.add(JSON.stringify([detail, options]));
  expect(answers.size).toBe(1);
}
