import { randomBytes } from 'node:crypto';
import * as zlib from 'node:zlib';
import { randomBase62, toBase62 } from '../domain/ids.ts';
import type { ApiKeyId } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';

/** In Node since 20.15; the types of that line do not have it. */
const { crc32 } = zlib as unknown as { crc32: (text: string) => number };

export type TokenKind = 'merchant' | 'operator';
export type TokenEnvironment = 'live' | 'test';

/** A token taken apart. `id` is an identifier that may be shown; `secret` is the part that proves. */
export interface Token {
  kind: TokenKind;
  environment: TokenEnvironment;
  id: ApiKeyId;
  secret: Secret;
}

const ID_LENGTH = 12;
/** 32 bytes are below 62^43. */
const SECRET_BYTES = 32;
const SECRET_LENGTH = 43;
const CRC_LENGTH = 6;
const PREFIXES: Readonly<Record<TokenKind, string>> = { merchant: 'mbk', operator: 'mbo' };

/** A token and nothing else: of fixed length, anchored at both ends, linear. */
export const TOKEN_PATTERN = /^(mbk|mbo)_(live|test)_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})$/;

/** For secret scanners: finds a token inside any text, in linear time. `parseToken` says whether the checksum fits. */
export const TOKEN_SCAN_PATTERN = /\bmb[ko]_(?:live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}(?![0-9A-Za-z])/;

/** Makes a token. `text` is shown once; only a keyed hash of the secret is kept. */
export function mintToken(kind: TokenKind, environment: TokenEnvironment): Token & { text: string } {
  const id = randomBase62(ID_LENGTH) as ApiKeyId;
  const secret = base62Of(randomBytes(SECRET_BYTES));
  const body = `${PREFIXES[kind]}_${environment}_${id}_${secret}`;
  return { kind, environment, id, secret: new Secret(secret), text: body + checksumOf(body) };
}

/** Takes a token apart; undefined for what no token of ours can be. A typo or garbage ends here, before anything is asked of the database. */
export function parseToken(text: string): Token | undefined {
  const match = TOKEN_PATTERN.exec(text);
  if (match === null) return undefined;
  const [, prefix, environment, id, secret = '', checksum] = match;
  if (checksumOf(text.slice(0, -CRC_LENGTH)) !== checksum) return undefined;
  return {
    kind: prefix === PREFIXES.operator ? 'operator' : 'merchant',
    environment: environment as TokenEnvironment,
    id: id as ApiKeyId,
    secret: new Secret(secret),
  };
}

function checksumOf(body: string): string {
  return toBase62(crc32(body), CRC_LENGTH);
}

function base62Of(bytes: Buffer): string {
  let value = BigInt(`0x${bytes.toString('hex')}`);
  let text = '';
  for (; value > 0n; value /= 62n) text = toBase62(Number(value % 62n), 1) + text;
  return text.padStart(SECRET_LENGTH, '0');
}
