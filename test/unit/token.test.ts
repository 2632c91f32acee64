import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ApiKeys } from '../../src/auth/api-keys.ts';
import type { ApiKeysParts } from '../../src/auth/api-keys.ts';
import type { StoredKey } from '../../src/auth/api-key-store.ts';
import { mintToken, parseToken, TOKEN_PATTERN, TOKEN_SCAN_PATTERN } from '../../src/auth/token.ts';
import { TokenHasher } from '../../src/auth/token-hash.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { cpuMsOf } from '../support/cpu.ts';

const pepper = (version: number) => ({ version, key: new Secret(randomBytes(32)) });
const CHARACTERS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-. %\n'.split('');

describe('token', () => {
  test('has the published form, is different each time, and comes apart as it was made', () => {
    // One secret in about sixty begins with a zero, which must not be lost.
    const made = Array.from({ length: 1_000 }, () => mintToken('merchant', 'live'));
    expect(new Set(made.map((token) => token.text)).size).toBe(1_000);
    expect(new Set(made.map((token) => token.id)).size).toBe(1_000);
    for (const { text, id, secret } of made) {
      expect(text).toMatch(/^mbk_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$/);
      expect(text).toMatch(TOKEN_PATTERN);
      for (const longer of [`${text}A`, `A${text}`, `${text}\n`]) expect(longer).not.toMatch(TOKEN_PATTERN);
      expect(parseToken(text)).toMatchObject({ kind: 'merchant', environment: 'live', id });
      expect(parseToken(text)?.secret.reveal()).toBe(secret.reveal());
      expect(inspect(parseToken(text), { depth: 5 })).not.toContain(secret.reveal());
    }
    expect(parseToken(mintToken('operator', 'test').text)).toMatchObject({
      kind: 'operator',
      environment: 'test',
    });
  });

  test('any one character changed, added or left out makes it none', () => {
    const { text } = mintToken('merchant', 'test');
    fc.assert(
      fc.property(
        fc.nat(text.length - 1),
        fc.constantFrom(...CHARACTERS),
        fc.constantFrom('change', 'insert', 'drop'),
        (at, character, how) => {
          const changed =
            text.slice(0, at) +
            (how === 'drop' ? '' : character) +
            text.slice(how === 'insert' ? at : at + 1);
          fc.pre(changed !== text);
          expect(parseToken(changed)).toBeUndefined();
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('every other character at every place makes it none', () => {
    const { text } = mintToken('operator', 'live');
    for (let at = 0; at < text.length; at += 1)
      for (const character of CHARACTERS) {
        if (character === text[at]) continue;
        expect(parseToken(text.slice(0, at) + character + text.slice(at + 1))).toBeUndefined();
      }
  });

  test('no text but a minted one is a token', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(TOKEN_PATTERN)), (text) => {
        // One text of the right form in four thousand million has the right checksum.
        expect(parseToken(text)).toBeUndefined();
      }),
    );
  });

  test('a scanner finds it in any text, and nothing that is longer or shorter', () => {
    const { text } = mintToken('merchant', 'live');
    for (const around of [`x=${text}`, `"${text}"`, `https://h/?k=${text}&b`, `Bearer ${text}\n`])
      expect(TOKEN_SCAN_PATTERN.exec(around)?.[0]).toBe(text);
    for (const around of [`${text}A`, text.slice(0, -1), `A${text}`, text.toUpperCase()])
      expect(TOKEN_SCAN_PATTERN.test(around)).toBe(false);
    expect(cpuMsOf(() => TOKEN_SCAN_PATTERN.test('mbk_live_'.repeat(50_000)), 100)).toBeLessThan(100);
  });

  test('any text is read in time that grows with its length only', () => {
    const read = () => {
      for (const text of ['mbk_live_'.repeat(20_000), `mbk_test_${'a'.repeat(200_000)}`, '_'.repeat(200_000)])
        expect(parseToken(text)).toBeUndefined();
    };
    expect(cpuMsOf(read, 100)).toBeLessThan(100);
  });
});

describe('hash', () => {
  test('needs the pepper: what a dump holds cannot be compared without it', () => {
    const { secret } = mintToken('merchant', 'live');
    const stored = new TokenHasher([pepper(1)]).hash(secret);
    expect(new TokenHasher([pepper(1)]).matches(secret, stored)).toBe(false);
  });

  test('survives a change of pepper while the old one is given, and not after', () => {
    const { secret } = mintToken('merchant', 'live');
    const [old, now] = [pepper(1), pepper(2)];
    const stored = new TokenHasher([old]).hash(secret);
    expect(new TokenHasher([now, old]).matches(secret, stored)).toBe(true);
    expect(new TokenHasher([now]).matches(secret, stored)).toBe(false);
    expect(new TokenHasher([now, old]).hash(secret).pepperVersion).toBe(2);
  });

  test('nobody matches nothing', () => {
    expect(new TokenHasher([pepper(1)]).matches(new Secret(''), undefined)).toBe(false);
  });
});

describe('verification', () => {
  const hasher = new TokenHasher([pepper(1)]);
  const now = Date.parse('2026-11-21T00:00:00Z');

  function setUp(change: Partial<StoredKey> = {}) {
    let queries = 0;
    const token = mintToken('merchant', 'live');
    const stored = {
      ...hasher.hash(token.secret),
      environment: 'live',
      scopes: ['invoke', 'root'],
      expiresAt: new Date(now + 1),
      revokedAt: null,
      merchantId: 'acme' as MerchantId,
      ...change,
    };
    const store = {
      find: (id: string) => {
        queries += 1;
        return Promise.resolve(id === token.id ? stored : undefined);
      },
      findOperator: () => Promise.resolve(undefined),
    } as unknown as ApiKeysParts['store'];
    const keys = new ApiKeys({ store, hasher, clock: { now: () => now }, environment: 'live' });
    return { keys, token, queries: () => queries };
  }

  test('a good token is its merchant, with the scopes that exist', async () => {
    const { keys, token } = setUp();
    expect(await keys.verify(token.text)).toEqual({
      kind: 'merchant',
      merchantId: 'acme',
      subject: `api-key:${token.id}`,
      apiKeyId: token.id,
      scopes: ['invoke'],
    });
  });

  test.each<[string, Partial<StoredKey>]>([
    ['expired', { expiresAt: new Date(now) }],
    ['revoked', { revokedAt: new Date(now) }],
    ['of another secret', { hash: randomBytes(32) }],
    ['of a hash of another length', { hash: randomBytes(16) }],
    ['of another environment in the database', { environment: 'test' }],
  ])('%s: not accepted', async (_name, change) => {
    const { keys, token } = setUp(change);
    expect(await keys.verify(token.text)).toBeUndefined();
  });

  test('a token of the other environment, an unknown id, and an operator that is none: not accepted', async () => {
    const { keys } = setUp();
    for (const token of [
      mintToken('merchant', 'test'),
      mintToken('merchant', 'live'),
      mintToken('operator', 'live'),
    ])
      expect(await keys.verify(token.text)).toBeUndefined();
  });

  test('garbage asks the database nothing', async () => {
    const { keys, token, queries } = setUp();
    const garbage = [
      '',
      'x',
      token.text.slice(1),
      `${token.text}x`,
      token.text.replace('live', 'test'),
      'A'.repeat(4_000),
      'mbk_live_',
    ];
    for (const text of garbage) expect(await keys.verify(text)).toBeUndefined();
    expect(queries()).toBe(0);
  });
});
