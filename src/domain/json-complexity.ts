import { ServiceError } from './errors.ts';

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

/** What a JSON text may be made of. */
export interface JsonComplexity {
  /** Objects and arrays in each other, the outermost counted. */
  depthMax: number;
  /** Object members and array elements together: what a text costs in memory once it is parsed. */
  membersMax: number;
}

/**
 * Counts without building anything. Exact for valid JSON; what is not valid is left to JSON.parse.
 * @throws ServiceError request.too_complex
 * Cost: one linear pass that ends at the limits.
 */
export function refuseComplexity(bytes: Uint8Array, max: JsonComplexity): void {
  let strings = 0;
  let depth = 0;
  let members = 0;
  let afterOpen = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const kind = KIND_OF_BYTE[bytes[at] as number];
    if (kind === SPACE) continue;
    if (kind === COMMA || (afterOpen && kind !== CLOSE)) members += 1;
    afterOpen = kind === OPEN;
    if (afterOpen) depth += 1;
    if (kind === CLOSE) depth -= 1;
    if (kind === QUOTE) {
      at = endOfString(bytes, at);
      strings += 1;
      // A member has a name and a value. More strings are not JSON, which JSON.parse finds at once.
      if (strings > 2 * max.membersMax + 1) return;
    }
    refuseBeyond(max, depth, members);
  }
}

function refuseBeyond({ depthMax, membersMax }: JsonComplexity, depth: number, members: number): void {
  if (depth > depthMax) throw tooComplex(`nested more than ${String(depthMax)} levels deep`);
  if (members > membersMax) throw tooComplex(`made of more than ${String(membersMax)} members`);
}

/**
 * Index of the closing quote. Long strings without escapes (base64) are skipped natively, with one call per string;
 * from the first escaped quote on it goes byte by byte, because a call per escaped quote would take a second on 25 MB.
 */
function endOfString(bytes: Uint8Array, start: number): number {
  const quote = bytes.indexOf(QUOTE_BYTE, start + 1);
  if (quote === -1) return bytes.length;
  let escape = quote;
  while (bytes[escape - 1] === BACKSLASH_BYTE) escape -= 1;
  if ((quote - escape) % 2 === 0) return quote;
  let at = quote + 1;
  while (at < bytes.length && bytes[at] !== QUOTE_BYTE) at += bytes[at] === BACKSLASH_BYTE ? 2 : 1;
  return at;
}

function tooComplex(how: string): ServiceError {
  return new ServiceError('request.too_complex', `The body is ${how}.`);
}
