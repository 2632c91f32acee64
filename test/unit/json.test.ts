import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ServiceError } from '../../src/domain/errors.ts';
import { parseJsonObject } from '../../src/http/json.ts';
import { cpuMsOf } from '../support/cpu.ts';

/** The code of the error, or `ok`. */
function outcomeOf(body: string | Buffer): string {
  return errorOf(body)?.code ?? 'ok';
}

function errorOf(body: string | Buffer): ServiceError | undefined {
  try {
    parseJsonObject(Buffer.from(body as string));
    return undefined;
  } catch (error) {
    return error as ServiceError;
  }
}

test('an object is parsed, with or without a byte order mark', () => {
  expect(parseJsonObject(Buffer.from('{"a":[1,"\u00e9\\u00e9",null]}'))).toEqual({
    a: [1, '\u00e9\u00e9', null],
  });
  expect(parseJsonObject(Buffer.from('\ufeff {"a":1}'))).toEqual({ a: 1 });
  expect(parseJsonObject(Buffer.from('{"a":1,"a":2}'))).toEqual({ a: 2 });
});

test.each([
  '',
  ' ',
  '[]',
  '[{}]',
  'null',
  '1',
  '"a"',
  'true',
  '{',
  '{"a":}',
  '{"a":1}}',
  "{'a':1}",
  '{"a":1,}',
  '{"a',
  '{"a\\',
  '{"a\\"',
])('what is not a JSON object is malformed: %s', (body) => {
  expect(outcomeOf(body)).toBe('request.malformed_json');
});

test.each(['ff', 'c080', 'eda080', 'f4908080', 'e282', '80'])('invalid UTF-8 is malformed: %s', (hex) => {
  const body = Buffer.concat([Buffer.from('{"a":"'), Buffer.from(hex, 'hex'), Buffer.from('"}')]);
  expect(errorOf(body)?.detail).toBe('The body is not JSON: invalid UTF-8.');
});

test('depth is bounded at 64, for objects and arrays together', () => {
  const nested = (depth: number): string => `${'{"a":['.repeat(depth / 2)}${']}'.repeat(depth / 2)}`;
  expect(outcomeOf(nested(64))).toBe('ok');
  expect(outcomeOf(nested(66))).toBe('request.too_complex');
  expect(outcomeOf(`{"a":${'['.repeat(63)}${']'.repeat(63)}}`)).toBe('ok');
  expect(outcomeOf(`{"a":${'['.repeat(64)}${']'.repeat(64)}}`)).toBe('request.too_complex');
  expect(outcomeOf('['.repeat(1_000_000))).toBe('request.too_complex');
  expect(outcomeOf(`{"a":"${'[{'.repeat(1_000)}\\"${'[{'.repeat(1_000)}"}`)).toBe('ok');
});

test('members are bounded at 20,000, for objects and arrays together', () => {
  const list = (length: number): string => `{"a":[${Array(length).fill('1').join(',')}]}`;
  expect(outcomeOf(list(19_999))).toBe('ok');
  expect(outcomeOf(list(20_000))).toBe('request.too_complex');
  expect(outcomeOf(`{"a":[${Array(20_000).fill('[]').join(',')}]}`)).toBe('request.too_complex');
  expect(outcomeOf(`{"a":"${','.repeat(30_000)}"}`)).toBe('ok');
});

test('keys that reach into other objects are refused, however they are written; the words alone are not', () => {
  expect(outcomeOf('{"__proto__":{"admin":true}}')).toBe('request.invalid');
  expect(outcomeOf('{"a":[{"\\u005f_proto__":1}]}')).toBe('request.invalid');
  expect(outcomeOf('{"a":{"constructor":{"prototype":{"admin":true}}}}')).toBe('request.invalid');
  expect(outcomeOf('{"properties":{"constructor":{"type":"string"},"prototype":{"type":"string"}}}')).toBe(
    'ok',
  );
  expect(outcomeOf('{"constructor":"a","a":"__proto__"}')).toBe('ok');
});

test('errors never repeat what was sent', () => {
  const secret = 'wJalrXUtnFEMI';
  for (const body of [
    `{"a":"${secret}`,
    `{"${secret}":${secret}}`,
    `["${secret}"]`,
    `{"__proto__":"${secret}"}`,
    secret,
  ]) {
    const error = errorOf(body);
    expect(error).toBeInstanceOf(ServiceError);
    expect(
      JSON.stringify([error?.message, error?.detail, error?.options, String(error?.cause)]),
    ).not.toContain(secret.slice(0, 4));
  }
  expect(errorOf('{"a":1 "b":2}')?.detail).toBe('The body is not valid JSON near character 7.');
});

const DEPTH_MAX = 64;
const MEMBERS_MAX = 20_000;

function naiveDepth(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(naiveDepth));
}

function naiveMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return Object.values(value).reduce((sum: number, member) => sum + 1 + naiveMembers(member), 0);
}

/** Strings full of what the scan looks for. */
const nastyString = fc.string({
  unit: fc.constantFrom('"', '\\', '[', '{', ']', '}', ',', ':', ' ', 'a', '\u2028', '\ud83d\ude00'),
});
const nastyValue = fc.letrec((tie) => ({
  value: fc.oneof({ maxDepth: 6 }, nastyString, fc.integer(), fc.constant(null), tie('list'), tie('object')),
  list: fc.array(tie('value'), { maxLength: 6 }),
  object: fc.dictionary(nastyString, tie('value'), { maxKeys: 6 }),
})).value;

test('the scan agrees with a naive count of the parsed value', () => {
  const wrapped = fc.record({
    value: nastyValue,
    depth: fc.integer({ min: 55, max: 70 }),
    padding: fc.integer({ min: 19_900, max: 20_010 }),
    space: fc.constantFrom('', ' ', '\n\t'),
  });
  fc.assert(
    fc.property(wrapped, ({ value, depth, padding, space }) => {
      let deep: unknown = value;
      for (let level = 0; level < depth; level += 1) deep = [deep];
      for (const body of [{ deep }, { value, padding: Array(padding).fill(0) }]) {
        const tooComplex = naiveDepth(body) > DEPTH_MAX || naiveMembers(body) > MEMBERS_MAX;
        expect(outcomeOf(JSON.stringify(body, null, space))).toBe(tooComplex ? 'request.too_complex' : 'ok');
      }
    }),
    { numRuns: 60 },
  );
});

test('the scan never disagrees with JSON.parse about what is valid', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('"', '\\', '[', '{', ']', '}', ',', ':', '1', 'u', ' ') }),
      (text) => {
        let expected = 'ok';
        try {
          const value = JSON.parse(text) as unknown;
          if (typeof value !== 'object' || value === null || Array.isArray(value))
            expected = 'request.malformed_json';
        } catch {
          expected = 'request.malformed_json';
        }
        expect(outcomeOf(text)).toBe(expected);
      },
    ),
  );
});

test.each([
  ['base64', `{"a":"${'QUJD'.repeat(6_000_000)}"}`],
  ['escaped quotes', `{"a":"${'\\"'.repeat(12_000_000)}"}`],
  ['backslashes', `{"a":"${'\\\\'.repeat(12_000_000)}"}`],
  ['brackets in a string', `{"a":"${'[{,'.repeat(8_000_000)}"}`],
])('24 MB of %s take a time that is linear in their size', (_name, text) => {
  const body = Buffer.from(text);
  const read = () => {
    expect(outcomeOf(body)).toBe('ok');
  };
  expect(cpuMsOf(read, 1_500)).toBeLessThan(1_500);
});
