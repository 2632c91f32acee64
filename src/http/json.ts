import { isUtf8 } from 'node:buffer';
import { ServiceError } from '../domain/errors.ts';

/** Deeper than any tool schema; shallow enough for every recursive walk behind us. */
const DEPTH_MAX = 64;
/** Object members and array elements together: what a body costs in memory once it is parsed. */
const MEMBERS_MAX = 20_000;

/**
 * Parses a body that must be one JSON object. Its size in objects is bounded before anything is built from it.
 * A byte order mark is skipped (RFC 8259 allows that); of duplicate keys the last wins, as in JSON.parse.
 * Errors never repeat what was sent.
 * @throws ServiceError request.malformed_json | request.too_complex | request.invalid
 * Cost: two linear passes, about 50 ms for 25 MB.
 */
export function parseJsonObject(bytes: Buffer): Record<string, unknown> {
  if (bytes.length === 0) throw malformed('The body is empty. Send a JSON object.');
  if (!isUtf8(bytes)) throw malformed('The body is not JSON: invalid UTF-8.');
  refuseComplexity(bytes);
  const value = parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  if (!isObject(value) || Array.isArray(value)) throw malformed('The body must be a JSON object.');
  refusePollution(value);
  return value;
}

const SPACE = 1;
const QUOTE = 2;
const COMMA = 3;
const OPEN = 4;
const CLOSE = 5;
const QUOTE_BYTE = 0x22;
const BACKSLASH_BYTE = 0x5c;

const KIND_OF_BYTE = new Uint8Array(256);
for (const [kind, characters] of [
  [SPACE, ' \t\r\n'],
  [QUOTE, '"'],
  [COMMA, ','],
  [OPEN, '{['],
  [CLOSE, '}]'],
] as const) {
  for (const byte of Buffer.from(characters)) KIND_OF_BYTE[byte] = kind;
}

/** Counts without building. Exact for valid JSON; what is not valid is left to JSON.parse. */
function refuseComplexity(bytes: Buffer): void {
  let depth = 0;
  let members = 0;
  let afterOpen = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const kind = KIND_OF_BYTE[bytes[at] ?? 0];
    if (kind === SPACE) continue;
    if (kind === COMMA || (afterOpen && kind !== CLOSE)) members += 1;
    afterOpen = kind === OPEN;
    if (afterOpen) depth += 1;
    if (kind === CLOSE) depth -= 1;
    if (kind === QUOTE) at = endOfString(bytes, at);
    refuseBeyondLimits(depth, members);
  }
}

function refuseBeyondLimits(depth: number, members: number): void {
  if (depth > DEPTH_MAX) throw tooComplex(`nested more than ${String(DEPTH_MAX)} levels deep`);
  if (members > MEMBERS_MAX) throw tooComplex(`made of more than ${String(MEMBERS_MAX)} members`);
}

/**
 * Index of the closing quote. Long strings without escapes (base64) are skipped natively, with one call per string;
 * from the first escaped quote on it goes byte by byte, because a call per escaped quote would take a second on 25 MB.
 */
function endOfString(bytes: Buffer, start: number): number {
  const quote = bytes.indexOf(QUOTE_BYTE, start + 1);
  if (quote === -1) return bytes.length;
  let escape = quote;
  while (bytes[escape - 1] === BACKSLASH_BYTE) escape -= 1;
  if ((quote - escape) % 2 === 0) return quote;
  let at = quote + 1;
  while (at < bytes.length && bytes[at] !== QUOTE_BYTE) at += bytes[at] === BACKSLASH_BYTE ? 2 : 1;
  return at;
}

/** The engine's message quotes the text around the mistake, so it is neither shown nor kept as a cause. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    const position = / in JSON at position (\d+)/.exec(String(error))?.[1];
    throw malformed(
      `The body is not valid JSON${position === undefined ? '' : ` near character ${position}`}.`,
    );
  }
}

/**
 * `__proto__`, and `constructor` holding `prototype`, reach into other objects when a body is merged somewhere.
 * The words alone are left in peace: a tool schema may well have a property named `constructor`.
 */
function refusePollution(container: object): void {
  for (const [key, value] of Object.entries(container)) {
    if (key === '__proto__') throw forbiddenKey('__proto__');
    if (!isObject(value)) continue;
    if (key === 'constructor' && Object.hasOwn(value, 'prototype'))
      throw forbiddenKey('constructor.prototype');
    refusePollution(value);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function malformed(detail: string): ServiceError {
  return new ServiceError('request.malformed_json', detail);
}

function tooComplex(how: string): ServiceError {
  return new ServiceError('request.too_complex', `The body is ${how}.`);
}

function forbiddenKey(name: '__proto__' | 'constructor.prototype'): ServiceError {
  return new ServiceError('request.invalid', `The key ${name} is not accepted in a body.`);
}
