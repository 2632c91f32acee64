import { createCipheriv, createHash, hkdfSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { EnvelopeContext } from '../../src/credentials/envelope.ts';
import { EnvelopeError, open, seal } from '../../src/credentials/envelope.ts';

const DATA_KEY = Buffer.alloc(32, 7);
const CONTEXT: EnvelopeContext = {
  app: 'mbk',
  env: 'test',
  merchant_id: 'merchant-abc',
  credential_id: 'cred_0000000000000000000001',
  version: '1',
  purpose: 'aws-credential',
};
const PLAINTEXT = Buffer.from('{"kind":"access-key"}');

/** The published vector: with this data key, context, salt and iv, these are the bytes of suite 1. */
const SALT = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
const IV = Buffer.from(Array.from({ length: 12 }, (_, i) => 0xa0 + i));
const VECTOR = [
  '4d424b01',
  '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
  'ed81cee5221d0a6e9381c731b46de007a364f560197a5f120efe0568bf0e1684',
  'a0a1a2a3a4a5a6a7a8a9aaab',
  '00000015',
  'd45ebdf103c67127075f64210400cf5899f645d85e',
  '2f2769bc6175d9dbd5706b0dc13ac8f5',
].join('');

describe('an envelope', () => {
  test('gives back what was sealed', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 5_000 }), (bytes) => {
        const plaintext = Buffer.from(bytes);
        expect(open(seal(plaintext, DATA_KEY, CONTEXT), DATA_KEY, CONTEXT)).toEqual(plaintext);
      }),
    );
  });

  test('is the published vector', () => {
    expect(sealVector().toString('hex')).toBe(VECTOR);
    expect(open(Buffer.from(VECTOR, 'hex'), DATA_KEY, CONTEXT)).toEqual(PLAINTEXT);
  });

  test('is what the description says, computed here a second time', () => {
    const uint32 = (n: number) => Buffer.from([n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]);
    const prefixed = (text: string) => Buffer.concat([uint32(Buffer.byteLength(text)), Buffer.from(text)]);
    const header = Buffer.from('MBK\x01', 'latin1');
    const fields = ['app', 'env', 'merchant_id', 'credential_id', 'version', 'purpose'] as const;
    const aad = Buffer.concat([
      header,
      uint32(6),
      ...fields.flatMap((f) => [prefixed(f), prefixed(CONTEXT[f])]),
    ]);
    const info = Buffer.concat([Buffer.from('mbk-envelope-1'), createHash('sha512').update(aad).digest()]);
    const derived = Buffer.from(hkdfSync('sha512', DATA_KEY, SALT, info, 64));
    const cipher = createCipheriv('aes-256-gcm', derived.subarray(0, 32), IV).setAAD(aad);
    const ciphertext = Buffer.concat([cipher.update(PLAINTEXT), cipher.final()]);
    const parts = [
      header,
      SALT,
      derived.subarray(32),
      IV,
      uint32(ciphertext.length),
      ciphertext,
      cipher.getAuthTag(),
    ];
    expect(Buffer.concat(parts).toString('hex')).toBe(VECTOR);
  });

  test('has its vector in docs/security.md', () => {
    const text = readFileSync(path.join(import.meta.dirname, '../../docs/security.md'), 'utf8');
    const told = /```text\n(data key[^`]*)```/.exec(text)?.[1]?.replaceAll(/\s+/g, ' ').trim();
    const fields = (['app', 'env', 'merchant_id', 'credential_id', 'version', 'purpose'] as const)
      .map((field) => `${field}=${CONTEXT[field]}`)
      .join(' ');
    const lines = [
      `data key ${DATA_KEY.toString('hex')}`,
      `context ${fields}`,
      `salt ${SALT.toString('hex')}`,
      `iv ${IV.toString('hex')}`,
      `plaintext ${PLAINTEXT.toString()}`,
      `envelope ${VECTOR}`,
    ];
    expect(told?.replaceAll(' ', '')).toBe(lines.join('').replaceAll(' ', ''));
  });

  test('never looks the same twice', () => {
    const envelopes = Array.from({ length: 100 }, () => seal(PLAINTEXT, DATA_KEY, CONTEXT).toString('hex'));
    expect(new Set(envelopes).size).toBe(100);
    expect(new Set(envelopes.map((hex) => hex.slice(8, 72))).size).toBe(100);
    expect(new Set(envelopes.map((hex) => hex.slice(136, 160))).size).toBe(100);
  });

  test('does not hold the plaintext', () => {
    expect(seal(PLAINTEXT, DATA_KEY, CONTEXT).includes('access-key')).toBe(false);
  });
});

describe('an envelope is refused', () => {
  test('after any one bit was flipped', () => {
    const envelope = sealVector();
    for (let bit = 0; bit < envelope.length * 8; bit++) {
      const altered = Buffer.from(envelope);
      altered.writeUInt8(altered.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      expectRefused(altered);
    }
  });

  test('at every shorter length', () => {
    const envelope = sealVector();
    for (let length = 0; length < envelope.length; length++) expectRefused(envelope.subarray(0, length));
  });

  test('with 1 to 64 bytes appended, put in front or put in anywhere', () => {
    const envelope = sealVector();
    for (let extra = 1; extra <= 64; extra++) {
      expectRefused(Buffer.concat([envelope, Buffer.alloc(extra)]));
      expectRefused(Buffer.concat([Buffer.alloc(extra), envelope]));
    }
    for (let at = 1; at < envelope.length; at++)
      expectRefused(Buffer.concat([envelope.subarray(0, at), Buffer.alloc(1), envelope.subarray(at)]));
  });

  test('with any run of bytes cut out, or any two bits flipped', () => {
    const envelope = sealVector();
    for (let at = 0; at < envelope.length; at++)
      for (const length of [1, 2, 16, 64])
        expectRefused(Buffer.concat([envelope.subarray(0, at), envelope.subarray(at + length)]));
    const bits = fc.tuple(...Array<fc.Arbitrary<number>>(2).fill(fc.nat(envelope.length * 8 - 1)));
    fc.assert(
      fc.property(bits, ([a = 0, b = 0]) => {
        fc.pre(a !== b);
        const altered = Buffer.from(envelope);
        for (const bit of [a, b])
          altered.writeUInt8(altered.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        expectRefused(altered);
      }),
      { numRuns: 2_000 },
    );
  });

  test('when any of its parts are those of another envelope of the same key, context and length', () => {
    const one = seal(PLAINTEXT, DATA_KEY, CONTEXT);
    const other = seal(Buffer.from('{"kind":"another--"}.'), DATA_KEY, CONTEXT);
    expect(other.length).toBe(one.length);
    // Salt, commitment, iv, ciphertext, tag: all mixtures but the two that are whole.
    const edges = [4, 36, 68, 80, 84, one.length - 16, one.length];
    const parts = [0, 1, 2, 4, 5].map((i) => [edges[i] ?? 0, edges[i + 1] ?? 0] as const);
    for (let mixture = 1; mixture < 2 ** parts.length - 1; mixture++) {
      const spliced = Buffer.from(one);
      parts.forEach(([from, to], i) => {
        if (((mixture >> i) & 1) === 1) other.copy(spliced, from, from, to);
      });
      expectRefused(spliced);
    }
  });

  test.each([
    ['app', { app: 'mbx' as 'mbk' }],
    ['environment', { env: 'production' }],
    ['merchant', { merchant_id: 'merchant-abd' }],
    ['credential', { credential_id: 'cred_0000000000000000000002' }],
    ['version', { version: '2' }],
    ['purpose', { purpose: 'other' as 'aws-credential' }],
  ])('for another %s', (_name, change) => {
    expectRefused(sealVector(), { ...CONTEXT, ...change });
  });

  test('when text moves from one context field to its neighbour', () => {
    const sealed = seal(PLAINTEXT, DATA_KEY, { ...CONTEXT, env: 'test', merchant_id: 'merchant' });
    expectRefused(sealed, { ...CONTEXT, env: 'testm', merchant_id: 'erchant' });
    // The name of the field that stands between them moves along: the same text, were the lengths not there.
    const contexts = [
      { ...CONTEXT, merchant_id: 'm', credential_id: 'acredential_idb' },
      { ...CONTEXT, merchant_id: 'mcredential_ida', credential_id: 'b' },
    ] as const;
    expectRefused(seal(PLAINTEXT, DATA_KEY, contexts[0]), contexts[1]);
  });

  test('for another data key, and for keys of other sizes', () => {
    for (const key of [Buffer.alloc(32, 8), Buffer.alloc(31, 7), Buffer.alloc(33, 7), Buffer.alloc(0)])
      expect(() => open(sealVector(), key, CONTEXT)).toThrow(EnvelopeError);
    expect(() => seal(PLAINTEXT, Buffer.alloc(16), CONTEXT)).toThrow(EnvelopeError);
  });

  test('when it is anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        expectRefused(Buffer.from(bytes));
      }),
    );
  });

  test('when ciphertext and tag were made anew under the true key but the commitment was not', () => {
    // What an attacker with the data key of one record would need: GCM itself would accept this box.
    const envelope = sealVector();
    const other = seal(Buffer.from('attacker'), Buffer.alloc(32, 9), CONTEXT, fixedRandom());
    envelope.copy(other, 36, 36, 68);
    expect(() => open(other, Buffer.alloc(32, 9), CONTEXT)).toThrow('another key or for another context');
  });
});

test('an empty or oversized plaintext is not sealed', () => {
  expect(() => seal(Buffer.alloc(0), DATA_KEY, CONTEXT)).toThrow(EnvelopeError);
  expect(() => seal(Buffer.alloc(65_536), DATA_KEY, CONTEXT)).toThrow(EnvelopeError);
  expect(seal(Buffer.alloc(65_436), DATA_KEY, CONTEXT).length).toBe(65_536);
});

function sealVector(): Buffer {
  return seal(PLAINTEXT, DATA_KEY, CONTEXT, fixedRandom());
}

function fixedRandom(): (bytes: number) => Buffer {
  return (bytes) => (bytes === 32 ? SALT : IV);
}

function expectRefused(envelope: Buffer, context = CONTEXT): void {
  expect(() => open(envelope, DATA_KEY, context)).toThrow(EnvelopeError);
}
