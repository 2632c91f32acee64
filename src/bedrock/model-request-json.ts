import { randomUUID } from 'node:crypto';
import { isUtf8 } from 'node:buffer';
import { ServiceError } from '../domain/errors.ts';
import { refuseComplexity } from '../domain/json-complexity.ts';
import { asObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** A change to a body: the member at `path` is set, or removed where `value` is undefined. */
export interface Edit {
  path: readonly string[];
  value: unknown;
}

/**
 * Deeper than any tool schema, and within the stack of every recursive walk; AWS's own parser gives up at 1,000. More members than a conversation
 * that fills the largest context has, and few enough to be parsed in some 50 ms.
 */
const COMPLEXITY = { depthMax: 256, membersMax: 200_000 };

/** Those that may not be written again as they were: fractions, exponents, more than 15 digits, minus zero. Linear: 16 digits end a try. */
const ODD_NUMBER = /-?\d{16,}[\d.eE+-]*|-?\d+[.eE][\d.eE+-]*|-0/g;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;

/**
 * The text of a body and what it says. Of members that are there twice the last one counts, as in JSON.parse.
 * @throws ServiceError request.malformed_json | request.too_complex, and nothing was built; neither repeats what was sent
 */
export function parseBody(body: Uint8Array): { text: string; json: Json } {
  if (!isUtf8(body)) throw malformed('The body is not JSON: invalid UTF-8.');
  refuseComplexity(body, COMPLEXITY);
  const text = textOf(body);
  let json: Json | undefined;
  try {
    json = asObject(JSON.parse(text));
  } catch {
    throw malformed('The body is not valid JSON.');
  }
  if (json === undefined) throw malformed('The body must be a JSON object.');
  return { text, json };
}

/** A byte order mark is no part of it (RFC 8259 lets it be ignored). */
function textOf(body: Uint8Array): string {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  return text.startsWith('\ufeff') ? text.slice(1) : text;
}

/** How many members the objects of a JSON text have as written, that is with those that are there twice. @param text valid JSON */
export function membersWritten(text: string): number {
  let members = 0;
  forEachRun(text, (from, to) => {
    for (let at = from; at < to; at += 1) if (text.charCodeAt(at) === COLON) members += 1;
  });
  return members;
}

/**
 * Writes a body anew with some members changed: every member once, spaces gone, the order of members kept (but for names that are numbers),
 * and every number as it was written: integers beyond 2^53, `1.0` and `1e400` stay what they were.
 */
export function rewrite(body: Uint8Array, edits: readonly Edit[]): Buffer {
  const nonce = randomUUID();
  const numbers: string[] = [];
  const root = JSON.parse(withoutOddNumbers(textOf(body), nonce, numbers)) as Record<string, unknown>;
  for (const edit of edits) apply(root, edit);
  const written = JSON.stringify(root);
  if (numbers.length === 0) return Buffer.from(written);
  const marks = new RegExp(`"\\\\u0000${nonce}:(\\d+)"`, 'g');
  return Buffer.from(written.replace(marks, (_mark, index: string) => numbers[Number(index)] ?? 'null'));
}

/** Numbers that would not survive as a double are put aside; a string that nobody can guess takes their place. */
function withoutOddNumbers(text: string, nonce: string, numbers: string[]): string {
  const pieces: string[] = [];
  let done = 0;
  forEachRun(text, (from, to) => {
    for (const match of text.slice(from, to).matchAll(ODD_NUMBER)) {
      const [number] = match;
      if (String(Number(number)) === number) continue;
      const at = from + match.index;
      pieces.push(text.slice(done, at), `"\\u0000${nonce}:${String(numbers.length)}"`);
      numbers.push(number);
      done = at + number.length;
    }
  });
  return numbers.length === 0 ? text : pieces.join('') + text.slice(done);
}

/** Paths are names of ours or names found by them, so never `__proto__`. */
function apply(root: Record<string, unknown>, { path, value }: Edit): void {
  let object = root;
  for (const name of path.slice(0, -1)) {
    const inner = asObject(object[name]) as Record<string, unknown> | undefined;
    object = inner ?? (object[name] = {});
  }
  const last = path.at(-1) ?? '';
  if (value === undefined) Reflect.deleteProperty(object, last);
  else object[last] = value;
}

/** What is outside of strings, run by run. @param text valid JSON */
function forEachRun(text: string, visit: (from: number, to: number) => void): void {
  let from = 0;
  while (from < text.length) {
    const quote = text.indexOf('"', from);
    if (quote === -1) break;
    visit(from, quote);
    from = endOfString(text, quote) + 1;
  }
  visit(from, text.length);
}

/** Index of the closing quote. Byte by byte from the first escaped quote on: a search for each of a million of them would take a second. */
function endOfString(text: string, start: number): number {
  const quote = text.indexOf('"', start + 1);
  if (quote === -1) return text.length;
  let escape = quote;
  while (text.charCodeAt(escape - 1) === BACKSLASH) escape -= 1;
  if ((quote - escape) % 2 === 0) return quote;
  let at = quote + 1;
  while (at < text.length && text.charCodeAt(at) !== QUOTE) at += text.charCodeAt(at) === BACKSLASH ? 2 : 1;
  return at;
}

function malformed(detail: string): ServiceError {
  return new ServiceError('request.malformed_json', detail);
}
