import { EventEmitter } from 'node:events';
import { Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import { errorFields, newLogger } from '../../src/observability/logger.ts';
import { scrub } from '../../src/observability/scrub.ts';

const AWS_SECRET = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';

/** Each is found by its own shape only: none of the others would catch it. */
const SECRETS: [what: string, text: string, left: string][] = [
  ['a token of ours', 'token mbk_live_abc123.', 'token mb?_[redacted].'],
  ["an operator's token", 'token mbo_test_abc123.', 'token mb?_[redacted].'],
  ['an access key id', 'id AKIAIOSFODNN7EXAMPLE.', 'id AKIA[redacted].'],
  ['a Bedrock API key', 'key ABSKabcdefgh.', 'key [redacted].'],
  ['a short-lived Bedrock API key', 'key bedrock-api-key-abcdefgh.', 'key [redacted].'],
  ['a bearer credential', 'header bearer short', 'header bearer [redacted]'],
  ['a basic credential', 'header Basic dTpw', 'header Basic [redacted]'],
  ['a signature', 'Signature=abc123, x', 'Signature=[redacted], x'],
  ['a JSON web token', 'jwt eyJhbGciOiJ.eyJzdWIi.c2ln', 'jwt [redacted]'],
  ['a secret key of AWS', `secret ${AWS_SECRET}`, 'secret [redacted]'],
];

test.each(SECRETS)('%s is replaced, and what stands around it stays', (_what, text, left) => {
  expect(scrub(text)).toBe(left);
});

test('what is no secret stays', () => {
  const text = 'model anthropic.claude-3-5-haiku-20241022-v1:0 in us-east-1, 12 tokens, 34 ms';
  expect(scrub(text)).toBe(text);
});

test('a long text is cut', () => {
  expect(scrub('so '.repeat(1_000))).toHaveLength(1_001);
});

test.each(SECRETS)('%s is replaced where it is cut, too', (_what, text) => {
  // With no part of it so long before the cut that its shape would still be known.
  for (let before = 950; before < 1_000; before += 1) {
    const scrubbed = scrub('so '.repeat(400).slice(0, before - 1) + ' ' + text);
    expect(scrubbed).toBe(scrubbed.slice(0, 1_001));
    expect(scrubbed.slice(before)).toBe(cut(scrub(text), 1_000 - before));
  }
});

const cut = (text: string, length: number) => (text.length > length ? `${text.slice(0, length)}…` : text);

describe('the logger', () => {
  function linesOf(write: (logger: ReturnType<typeof newLogger>) => void): Record<string, unknown>[] {
    const lines: string[] = [];
    const destination = new Writable({
      write(chunk: Buffer, _encoding, done) {
        lines.push(chunk.toString());
        done();
      },
    });
    write(newLogger('info', destination));
    return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  test.each(['info', 'warn', 'error'] as const)('%s scrubs every text and keeps the rest', (level) => {
    const [line] = linesOf((logger) => {
      logger[level]('event', { reason: `Bearer ${AWS_SECRET}`, durationMs: 12, complete: true, max: null });
    });
    expect(line).toMatchObject({
      msg: 'event',
      reason: 'Bearer [redacted]',
      durationMs: 12,
      complete: true,
      max: null,
    });
  });

  test('cuts a long text', () => {
    const [line] = linesOf((logger) => {
      logger.info('event', { reason: 'so '.repeat(1_000) });
    });
    expect(line?.['reason']).toHaveLength(1_001);
  });

  test('lines that did not fit, because nobody read, are counted when somebody does', () => {
    const lines: string[] = [];
    const out = Object.assign(new EventEmitter(), { write: (line: string) => void lines.push(line) });
    newLogger('info', out);
    out.emit('drain');
    for (let n = 0; n < 3; n += 1) out.emit('drop', 'a line');
    for (let n = 0; n < 2; n += 1) out.emit('drain');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      expect.objectContaining({ msg: 'log lines lost: standard output was not read', lines: 3 }),
    ]);
  });

  test('says the class, code and place of an error and of its causes, and never the message', () => {
    const cause = Object.assign(new RangeError(AWS_SECRET), { code: 'E_CAUSE' });
    const { error, at } = errorFields(new TypeError('what a caller sent', { cause }));
    expect(error).toBe('TypeError < RangeError(E_CAUSE)');
    expect(at).toContain('scrub.test.ts');
    expect(JSON.stringify({ error, at })).not.toContain('what a caller sent');
    const fake = errorFields(new Error('what a caller sent:\n    at heart (of it:1:1)'));
    expect(fake.at).toContain('scrub.test.ts');
    expect(JSON.stringify(fake)).not.toContain('heart');
    const renamed = Object.assign(new Error('before'), { message: 'after' });
    expect(errorFields(renamed).at).toContain('scrub.test.ts');
    expect(errorFields('thrown text')).toEqual({ error: 'string', at: undefined });
  });
});
