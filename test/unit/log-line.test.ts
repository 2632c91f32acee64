/* eslint-disable @typescript-eslint/no-confusing-void-expression -- several lines in one expression read as a table */
import { describe, expect, test } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { mintToken } from '../../src/auth/token.ts';
import { LOG_FIELDS } from '../../src/observability/fields.ts';
import { errorFields, newLogger } from '../../src/observability/logger.ts';
import type { LogFields } from '../../src/observability/logger.ts';
import { scrubLine } from '../../src/observability/scrub.ts';
import { findInSource } from '../support/source.ts';
import { cpuMsOf } from '../support/cpu.ts';

function linesOf(write: (logger: ReturnType<typeof newLogger>) => void): string[] {
  const lines: string[] = [];
  write(newLogger('info', { write: (line: string) => void lines.push(line) }));
  return lines;
}

const JWT = `eyJhbGciOiJIUzI1NiJ9.${Buffer.from('{"sub":"someone"}').toString('base64url')}.${randomBytes(32).toString('base64url')}`;
const SECRETS: Record<string, string> = {
  'an access key id': 'AKIAIOSFODNN7EXAMPLE',
  'a temporary access key id': 'ASIAIOSFODNN7EXAMPLE',
  'a secret key of AWS': 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  'another one, with a plus': 'aB3+dE6/gH9+jK2/mN5+pQ8/sT1+vW4/yZ7+bC0x',
  'a session token': randomBytes(300).toString('base64'),
  'a token of ours': mintToken('merchant', 'live').text,
  'an operator’s token': mintToken('operator', 'test').text,
  'a Bedrock API key': `ABSK${randomBytes(60).toString('base64')}`,
  'a JWT': JWT,
  'a pepper': randomBytes(32).toString('base64'),
  'a secret of a webhook': `whsec_${randomBytes(32).toString('base64')}`,
};
const ENCODINGS: Record<string, (text: string) => string> = {
  raw: (text) => text,
  base64: (text) => Buffer.from(text).toString('base64'),
  'base64 of something larger': (text) => Buffer.from(`{"key":"${text}"}`).toString('base64'),
  'base64 one further': (text) => Buffer.from(`a${text}`).toString('base64'),
  'base64 two further': (text) => Buffer.from(`ab${text}`).toString('base64'),
  base64url: (text) => Buffer.from(text).toString('base64url'),
  hex: (text) => Buffer.from(text).toString('hex'),
  'hex in capitals': (text) => Buffer.from(text).toString('hex').toUpperCase(),
  URL: (text) => encodeURIComponent(text),
  'URL, twice': (text) => encodeURIComponent(encodeURIComponent(text)),
  'JSON-escaped': (text) => JSON.stringify({ text }).replaceAll('/', '\\/'),
  'JSON-escaped, twice': (text) => JSON.stringify(JSON.stringify({ text }).replaceAll('/', '\\/')),
  'unicode escapes': (text) => text.replaceAll('/', '\\u002f').replaceAll('+', '\\u002B'),
  'after a line break': (text) => `first\n${text}\nlast`,
  'in a header': (text) => `authorization: Bearer ${text}`,
  'in a query': (text) => `/path?x=${encodeURIComponent(text)}&y=1`,
};

/** Every place of a line in which a text can end up. */
const PLACES: Record<string, (text: string) => string[]> = {
  'the event': (text) => linesOf((log) => [log.info(`said ${text}`), log.warn(text), log.error(`${text}.`)]),
  'a field': (text) =>
    linesOf((log) => [
      log.info('x', { reason: text }),
      log.warn('x', { name: `a ${text} b` }),
      log.error('x', { at: text }),
    ]),
  'the name of a field': (text) =>
    linesOf((log) => [log.info('x', { [text]: 'y' }), log.warn('x', { [text]: 1 })]),
  'an object': (text) =>
    linesOf((log) => [log.info('x', { reason: { text, deep: [text] } } as unknown as LogFields)]),
  'an error': (text) => {
    const cause = Object.assign(new Error(text), { code: text, body: text, $metadata: { text } });
    return linesOf((log) => [
      log.error('x', errorFields(new Error(`y ${text}`, { cause }))),
      log.error('x', errorFields(text)),
      log.warn('x', { reason: cause } as unknown as LogFields),
    ]);
  },
  'the name of an error': (text) =>
    linesOf((log) => [log.error('x', errorFields(Object.assign(new Error('y'), { name: text })))]),
  'a line that did not come from the logger’s fields': (text) => [
    scrubLine(`${JSON.stringify({ level: 30, msg: 'x', headers: { a: text }, list: [text] })}\n`),
    scrubLine(`not JSON ${text}\n`),
  ],
};

/** Ten characters in a row of a secret, in the encoding, are too many to be there. */
function leaks(line: string, encoded: string, secret: string): boolean {
  const pieces = [secret, encoded, JSON.stringify(encoded).slice(1, -1)];
  return pieces.some((piece) => {
    const core = piece.slice(Math.floor(piece.length / 2) - 8, Math.floor(piece.length / 2) + 8);
    return line.includes(core);
  });
}

describe.each(Object.entries(PLACES))('in %s', (_place, write) => {
  test.each(Object.keys(ENCODINGS))('nothing of any secret as %s', (encoding) => {
    for (const [what, secret] of Object.entries(SECRETS)) {
      const encoded = (ENCODINGS[encoding] as (text: string) => string)(secret);
      const lines = write(encoded);
      expect(lines.length).toBeGreaterThan(0);
      expect(lines.filter((line) => leaks(line, encoded, secret)).map((line) => `${what}: ${line}`)).toEqual(
        [],
      );
    }
  });
});

test('a line stays a line of JSON, with what is no secret in it', () => {
  const fields: LogFields = {
    requestId: '0193f1f0-7c1e-7000-8000-00000000abcd',
    route: 'POST /api/merchants/:id/bedrock/model/*modelId/invoke-with-response-stream',
    merchantId: 'a-merchant-with-a-name-of-sixty-three-characters-0123456789-abcd',
    modelId: 'arn:aws:bedrock:us-east-1:100000000001:application-inference-profile/abcdef123456',
    subject: 'api-key:52EHFcJdPv2n',
    secretName: 'mbk/main/merchant-a/cred_Yegt6beDEBhWH8lmN2oU0b/1',
    at: 'at Ledger.open (dist/ledger/ledger.js:52:13) | at async Admission.#openOneMoreTime (src/gateway/admission.ts:104:20)',
    error: 'ServiceError < PrismaClientKnownRequestError(P2010) < DriverAdapterError',
    durationMs: 12,
  };
  const [line = ''] = linesOf((log) => {
    log.info('calls became unknown: their process is gone or their deadline passed', fields);
  });
  expect(line.endsWith('}\n')).toBe(true);
  expect(JSON.parse(line)).toMatchObject(fields);
  const [broken = ''] = linesOf((log) => {
    log.info('a "quoted"\nline', { reason: `\\ "${JWT}"\n` });
  });
  expect(JSON.parse(broken)).toMatchObject({ msg: 'a "quoted"\nline', reason: '\\ "[redacted]"\n' });
});

test('it is linear: a hundred thousand characters of anything take no time', () => {
  for (const text of [
    'a',
    'A1',
    'ey',
    '%2',
    '%2F',
    '\\',
    '\\u00',
    'QUtJQ',
    'Bearer ',
    'Credential',
    '-_/+=',
  ].map((part) => part.repeat(100_000 / part.length))) {
    expect(cpuMsOf(() => scrubLine(`{"msg":"${text}"}`), 1_000)).toBeLessThan(1_000);
  }
});

test('every name that is logged is on the list, and nothing writes around the logger', () => {
  expect(new Set(LOG_FIELDS).size).toBe(LOG_FIELDS.length);
  // Only what a person reads at a terminal: help, the check of the configuration, why it did not start.
  expect(findInSource(/process\.(stdout|stderr)|console\.|pino\(/)).toEqual([
    'main.ts',
    'observability/logger.ts',
  ]);
});

test('a name that is not on the list is not logged, whatever it says', () => {
  const [line = ''] = linesOf((log) => {
    log.info('x', { reason: 'kept', prompt: 'words of a caller' } as LogFields);
  });
  expect(line).toContain('kept');
  expect(line).not.toMatch(/prompt|words of a caller/);
});
