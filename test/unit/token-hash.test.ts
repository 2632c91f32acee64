import { afterAll, beforeEach, expect, test } from '@jest/globals';

// Counts the real function. What imports it is loaded afterwards, since an ES module takes its imports once.
const crypto = process.getBuiltinModule('node:crypto');
const { timingSafeEqual } = crypto;
let compared: number[] = [];
crypto.timingSafeEqual = (a, b) => {
  compared.push(a.byteLength, b.byteLength);
  return timingSafeEqual(a, b);
};
const { ApiKeys } = await import('../../src/auth/api-keys.ts');
const { mintToken } = await import('../../src/auth/token.ts');
const { TokenHasher } = await import('../../src/auth/token-hash.ts');
const { Secret } = await import('../../src/domain/secret.ts');

/** Counts how often it is opened: once for each HMAC. */
let opened = 0;
class CountingSecret extends Secret<Buffer> {
  override reveal(): Buffer {
    opened += 1;
    return super.reveal();
  }
}
const hasher = new TokenHasher([{ version: 1, key: new CountingSecret(crypto.randomBytes(32)) }]);
const { secret } = mintToken('merchant', 'live');
const stored = hasher.hash(secret);

beforeEach(() => {
  compared = [];
  opened = 0;
});
afterAll(() => {
  crypto.timingSafeEqual = timingSafeEqual;
});

test.each([
  ['a known id', stored, true],
  ['a wrong secret', { ...stored, hash: crypto.randomBytes(32) }, false],
  ['an unknown id', undefined, false],
  ['a pepper that is gone', { ...stored, pepperVersion: 9 }, false],
])('%s costs one HMAC and one comparison of 32 bytes in constant time', (_name, found, expected) => {
  expect(hasher.matches(secret, found)).toBe(expected);
  expect({ opened, compared }).toEqual({ opened: 1, compared: [32, 32] });
});

test.each<[string, object | undefined, boolean]>([
  ['good', {}, true],
  ['of another secret', { hash: crypto.randomBytes(32) }, false],
  ['nobody has', undefined, false],
  ['revoked', { revokedAt: new Date(0) }, false],
  ['expired', { expiresAt: new Date(0) }, false],
  ['of the other environment', { environment: 'test' }, false],
])(
  'a key that is %s costs as much as any other: two HMACs and one comparison',
  async (_name, change, good) => {
    const now = 1_000;
    const token = mintToken('operator', 'live');
    const key = { environment: 'live', scopes: [], expiresAt: new Date(now + 1), revokedAt: null };
    const row = change && { ...key, ...hasher.hash(token.secret), ...change };
    const store = { findOperator: () => Promise.resolve(row) } as never;
    const keys = new ApiKeys({ store, hasher, clock: { now: () => now }, environment: 'live' });
    opened = 0;
    compared = [];
    expect((await keys.verify(token.text)) !== undefined).toBe(good);
    expect({ opened, compared }).toEqual({ opened: 2, compared: [32, 32] });
  },
);
