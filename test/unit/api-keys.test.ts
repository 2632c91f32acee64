import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ApiKeys, newOperatorKey } from '../../src/auth/api-keys.ts';
import type { ApiKeysParts } from '../../src/auth/api-keys.ts';
import type { NewKey, StoredKey } from '../../src/auth/api-key-store.ts';
import { newBearerVerifier } from '../../src/auth/bearer.ts';
import { mintToken, parseToken } from '../../src/auth/token.ts';
import type { TokenEnvironment } from '../../src/auth/token.ts';
import { TokenHasher } from '../../src/auth/token-hash.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { MERCHANT_SCOPES, OPERATOR_SCOPES } from '../../src/domain/principal.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { Tx } from '../../src/persistence/database.ts';

const acme = 'acme' as MerchantId;
const actor = { subject: 'api-key:maker', requestId: 'r1' };
const DAY_MS = 86_400_000;
const START = Date.parse('2026-11-21T00:00:00Z');
/** A budget that nothing spends. */
const failures = { begin: () => Promise.resolve(() => undefined) };
const hasher = new TokenHasher([{ version: 1, key: new Secret(randomBytes(32)) }]);

/** Keeps keys in memory and counts what it is asked. */
function newStore() {
  const keys = new Map<string, StoredKey & { merchantId: MerchantId }>();
  const operators = new Map<string, StoredKey>();
  const asked: string[] = [];
  const insert = (how: string, merchantId: MerchantId, key: NewKey): Promise<void> => {
    asked.push(how);
    keys.set(key.id, { ...key, merchantId, revokedAt: null });
    return Promise.resolve();
  };
  const store: ApiKeysParts['store'] = {
    find: (id) => {
      asked.push('find');
      return Promise.resolve(keys.get(id));
    },
    findOperator: (id) => {
      asked.push('findOperator');
      return Promise.resolve(operators.get(id));
    },
    insert: (_tx, merchantId, _actor, key) => insert('insert', merchantId, key),
    insertAlone: (merchantId, _actor, key) => insert('insertAlone', merchantId, key),
    roll: () => Promise.reject(new Error('not here')),
  };
  return { store, keys, operators, asked };
}

function setUp(environment: TokenEnvironment = 'live') {
  const parts = newStore();
  const clock = { time: START, now: () => clock.time };
  return { ...parts, clock, apiKeys: new ApiKeys({ store: parts.store, hasher, clock, environment }) };
}

describe('create', () => {
  test('the token is its key; the store gets a hash, and nothing of the secret', async () => {
    const { apiKeys, keys, asked } = setUp();
    const made = await apiKeys.create(actor, acme, {
      name: 'ci',
      scopes: ['invoke', 'usage:read'],
      expiresInDays: 90,
    });
    expect(made).toMatchObject({ name: 'ci', scopes: ['invoke', 'usage:read'] });
    expect(Date.parse(made.expiresAt)).toBe(START + 90 * DAY_MS);
    expect(asked).toEqual(['insertAlone']);
    const secret = parseToken(made.token)?.secret.reveal() ?? '';
    const row = keys.get(made.id);
    expect(row?.hash).toHaveLength(32);
    expect(JSON.stringify(row)).not.toContain(secret);
    expect(Buffer.from(row?.hash ?? []).toString('latin1')).not.toContain(secret);
    expect(await apiKeys.verify(made.token)).toEqual({
      kind: 'merchant',
      merchantId: 'acme',
      subject: `api-key:${made.id}`,
      apiKeyId: made.id,
      scopes: ['invoke', 'usage:read'],
    });
  });

  test('a transaction that is given is the one that is used', async () => {
    const { apiKeys, asked } = setUp();
    await apiKeys.create(actor, acme, { name: 'x', scopes: ['invoke'], expiresInDays: 1 }, {} as Tx);
    expect(asked).toEqual(['insert']);
  });

  test.each([0, -1, 366, 1.5, Number.NaN, Infinity])('%d days is no lifetime', async (expiresInDays) => {
    const { apiKeys, asked } = setUp();
    const request = { name: 'x', scopes: ['invoke'] as const, expiresInDays };
    await expect(apiKeys.create(actor, acme, request)).rejects.toThrow(RangeError);
    expect(asked).toEqual([]);
    const { scopes: _scopes, ...rest } = request;
    expect(() =>
      newOperatorKey(hasher, { ...rest, scopes: OPERATOR_SCOPES, environment: 'live', now: START }),
    ).toThrow(RangeError);
  });
});

describe('verify', () => {
  test('takes a key of its own environment alone, also one that is in its tables', async () => {
    const { apiKeys: testing, store, clock } = setUp('test');
    const { token } = await testing.create(actor, acme, { name: 'x', scopes: ['invoke'], expiresInDays: 1 });
    expect(await testing.verify(token)).toBeDefined();
    const live = new ApiKeys({ store, hasher, clock, environment: 'live' });
    expect(await live.verify(token)).toBeUndefined();
  });

  test('ends with the millisecond of the expiry', async () => {
    const { apiKeys, clock } = setUp();
    const { token } = await apiKeys.create(actor, acme, { name: 'x', scopes: ['invoke'], expiresInDays: 1 });
    clock.time = START + DAY_MS - 1;
    expect(await apiKeys.verify(token)).toBeDefined();
    clock.time = START + DAY_MS;
    expect(await apiKeys.verify(token)).toBeUndefined();
  });

  test('an operator is one by the operators’ table alone, and has no scope of a merchant', async () => {
    const { apiKeys, operators, asked } = setUp();
    const { token, row } = newOperatorKey(hasher, {
      name: 'Jo',
      scopes: ['ops:usage:read'],
      environment: 'live',
      expiresInDays: 365,
      now: START,
    });
    expect(row.expiresAt.getTime()).toBe(START + 365 * DAY_MS);
    expect(await apiKeys.verify(token)).toBeUndefined();
    operators.set(row.id, {
      ...row,
      scopes: [...row.scopes, 'invoke'],
      hash: row.secretHash,
      revokedAt: null,
    });
    expect(await apiKeys.verify(token)).toEqual({
      kind: 'operator',
      subject: `operator:${row.id}`,
      keyId: row.id,
      scopes: ['ops:usage:read'],
    });
    expect(asked).toEqual(['findOperator', 'findOperator']);
  });

  test('a merchant’s key whose row names an operator’s scope does not have it', async () => {
    const { apiKeys, keys } = setUp();
    const made = await apiKeys.create(actor, acme, { name: 'x', scopes: ['invoke'], expiresInDays: 1 });
    const row = keys.get(made.id);
    if (row) keys.set(made.id, { ...row, scopes: ['invoke', ...OPERATOR_SCOPES, 'root'] });
    expect(await apiKeys.verify(made.token)).toMatchObject({ kind: 'merchant', scopes: ['invoke'] });
  });

  test('a database that is away is an error, not a refusal', async () => {
    const { store } = newStore();
    const away = () => Promise.reject(new ServiceError('ledger.unavailable', 'away'));
    const apiKeys = new ApiKeys({
      store: { ...store, find: away, findOperator: away },
      hasher,
      clock: { now: () => START },
      environment: 'live',
    });
    for (const kind of ['merchant', 'operator'] as const)
      await expect(apiKeys.verify(mintToken(kind, 'live').text)).rejects.toMatchObject({
        code: 'ledger.unavailable',
      });
  });
});

describe('what a request costs the database', () => {
  test('one look-up for a well-formed token, whosever it is', async () => {
    const { apiKeys, asked } = setUp('test');
    const made = await apiKeys.create(actor, acme, { name: 'x', scopes: ['invoke'], expiresInDays: 1 });
    asked.length = 0;
    await apiKeys.verify(made.token);
    await apiKeys.verify(mintToken('merchant', 'test').text);
    expect(asked).toEqual(['find', 'find']);
  });

  test('ten thousand pieces of garbage: none', async () => {
    const { apiKeys, asked } = setUp('test');
    const verify = newBearerVerifier({ apiKeys, devTokens: true, failures });
    const { text } = mintToken('merchant', 'test');
    const typo = fc
      .tuple(fc.nat(text.length - 1), fc.constantFrom(...'0123456789ABCDEFabcdefXYZxyz_-. '.split('')))
      .map(([at, character]) => text.slice(0, at) + character + text.slice(at + 1));
    const garbage = fc.oneof(
      fc.string({ maxLength: 200 }),
      typo,
      fc.stringMatching(/^mb[ko]_(live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$/),
      fc.stringMatching(/^dev_[a-z_0-9]{1,8}:[a-z0-9-]{1,8}$/),
      fc.stringMatching(/^[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{1,20}\.[A-Za-z0-9_-]{0,20}$/),
      fc.constant(mintToken('merchant', 'live').text),
    );
    await fc.assert(
      fc.asyncProperty(garbage, async (token) => {
        fc.pre(token !== text);
        await verify(token, { remembered: false, address: '' });
        expect(asked).toEqual([]);
      }),
      { numRuns: 10_000 },
    );
  });
});

describe('one form of token, one verifier', () => {
  const seen: string[] = [];
  const nobody = (name: string) => () => {
    seen.push(name);
    return Promise.resolve(undefined);
  };
  const apiKeys = {
    verify: nobody('api-keys'),
    verifyRemembered: nobody('remembered'),
    inMemory: () => ({ key: 'x', seems: 'unknown' as const }),
  };
  const anew = { remembered: false, address: '' };

  test.each([
    ['mbk_live_x', ['api-keys']],
    ['a.b.c', ['jwt']],
    ['a.b.', ['jwt']],
    // A JWE is none of ours.
    ['a.b.c.d.e', ['api-keys']],
    ['dev_user_1:acme', []],
    ['dev_user.1.x', []],
    ['', ['api-keys']],
  ])('%s', async (token, expected) => {
    seen.length = 0;
    await newBearerVerifier({ apiKeys, failures, jwt: nobody('jwt'), devTokens: true })(token, anew);
    expect(seen).toEqual(expected);
  });

  test('without JWTs and dev tokens none of either is accepted', async () => {
    seen.length = 0;
    const verify = newBearerVerifier({ apiKeys, failures, devTokens: false });
    expect(await verify('a.b.c', anew)).toBeUndefined();
    expect(await verify('dev_user_1:acme', anew)).toBeUndefined();
    expect(seen).toEqual(['api-keys']);
  });

  test('a dev token is its merchant with every scope of one, and never an operator', async () => {
    const verify = newBearerVerifier({ apiKeys, failures, devTokens: true });
    expect(await verify('dev_user_1:acme', anew)).toEqual({
      kind: 'merchant',
      merchantId: 'acme',
      subject: 'dev:user_1',
      scopes: MERCHANT_SCOPES,
    });
    for (const bad of [
      'dev_user_1',
      'dev_:acme',
      'dev_user:',
      'dev_user:~system',
      'dev_user:-acme',
      'dev_user:Acme',
      'dev_us er:acme',
      'dev_user:acme\n',
      'dev_user:acme:x',
      `dev_user:${'a'.repeat(64)}`,
    ])
      expect(await verify(bad, anew)).toBeUndefined();
  });
});
