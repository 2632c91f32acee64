import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { CallId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { AnswerSeal } from '../../src/ledger/answer-seal.ts';

const [KEY, OTHER] = [new Secret(randomBytes(32)), new Secret(randomBytes(32))];
const binding = {
  merchantId: 'merchant-a' as MerchantId,
  callId: '01890000-0000-7000-8000-000000000000' as CallId,
  idempotencyKey: 'order-1',
};

describe('a sealed answer', () => {
  test('opens under the same key for the same call, whatever is in it', () => {
    const seal = new AnswerSeal([KEY]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2_000 }), (bytes) => {
        const plaintext = Buffer.from(bytes);
        const sealed = seal.seal(plaintext, binding);
        expect(sealed.length).toBe(plaintext.length + 28);
        expect(seal.open(sealed, binding)).toEqual(plaintext);
        expect(seal.seal(plaintext, binding)).not.toEqual(sealed);
      }),
    );
  });

  test.each([
    ['another merchant', { merchantId: 'merchant-b' as MerchantId }],
    ['another call', { callId: '01890000-0000-7000-8000-000000000001' as CallId }],
    ['another Idempotency-Key', { idempotencyKey: 'order-2' }],
  ])('stays shut for %s', (_, change) => {
    const seal = new AnswerSeal([KEY]);
    expect(seal.open(seal.seal(Buffer.from('x'), binding), { ...binding, ...change })).toBeUndefined();
  });

  test('stays shut without the key of the service, and opens under the one before', () => {
    const sealed = new AnswerSeal([KEY]).seal(Buffer.from('x'), binding);
    expect(new AnswerSeal([OTHER]).open(sealed, binding)).toBeUndefined();
    expect(new AnswerSeal([OTHER, KEY]).open(sealed, binding)).toEqual(Buffer.from('x'));
    expect(
      new AnswerSeal([KEY]).open(new AnswerSeal([OTHER, KEY]).seal(Buffer.from('x'), binding), binding),
    ).toBeUndefined();
  });

  test('with one bit changed, or one byte less or more, is as good as gone', () => {
    const seal = new AnswerSeal([KEY]);
    const sealed = seal.seal(Buffer.from('an answer'), binding);
    for (let bit = 0; bit < sealed.length * 8; bit += 1) {
      const changed = Buffer.from(sealed);
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(seal.open(changed, binding)).toBeUndefined();
    }
    for (let length = 0; length < sealed.length; length += 1)
      expect(seal.open(sealed.subarray(0, length), binding)).toBeUndefined();
    expect(seal.open(Buffer.concat([sealed, Buffer.alloc(1)]), binding)).toBeUndefined();
  });
});
