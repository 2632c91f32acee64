import { decodeProtectedHeader, jwtVerify } from 'jose';
import type { JWTPayload, JWTVerifyGetKey, JWTVerifyOptions } from 'jose';
import type { Clock } from '../domain/clock.ts';
import { ServiceError } from '../domain/errors.ts';
import { parseMerchantId } from '../domain/ids.ts';
import { MERCHANT_SCOPES } from '../domain/principal.ts';
import type { MerchantPrincipal } from '../domain/principal.ts';
import type { Secret } from '../domain/secret.ts';

export interface JwtOptions {
  /** The only one that is accepted, whatever a token's header says. */
  algorithm: 'HS256' | 'RS256' | 'ES256' | 'EdDSA';
  issuer: string;
  audience: string;
  /** The claim that holds the merchant id. */
  merchantClaim: string;
  /** The claim that holds the scopes: a list, or words separated by spaces. */
  scopeClaim: string;
  /** What the header `typ` must be, e.g. `at+jwt` (RFC 9068), where the issuer also signs other kinds for this audience. */
  typ?: string;
  /** For HS256: at least 32 bytes of UTF-8. */
  secret?: Secret;
  /** For the others (jwks-out.ts). Only ever these: what a token says about where its key is, is not read. */
  keys?: JWTVerifyGetKey;
  clock: Clock;
}

/** @throws ServiceError auth.unavailable when the keys cannot be fetched */
export type VerifyJwt = (token: string) => Promise<MerchantPrincipal | undefined>;

/** A token must not be older than this, whatever its own expiry says. */
const AGE_MAX_SECONDS = 3_600;
const CLOCK_TOLERANCE_SECONDS = 30;
/** RFC 7518 3.2: a key of the size of the hash. */
const SECRET_BYTES_MIN = 32;
const KEY_ID = /^[A-Za-z0-9._-]{1,128}$/;
const SUBJECT = /^[\x21-\x7e]{1,128}$/;
/** Headers by which a token could bring or point to its own key. */
const KEY_BEARING = ['jku', 'jwk', 'x5u', 'x5c', 'crit'] as const;

/**
 * Verifies JWTs of one issuer: one algorithm, one place for keys, exp, iat, sub, aud and iss required.
 * The result for every token that is not good is the same undefined; that the keys cannot be fetched says nothing of a token.
 * @throws TypeError at once for options that could not verify anything safely.
 */
export function newJwtVerifier(options: JwtOptions): VerifyJwt {
  const key = keyOf(options);
  return async (token) => {
    if (!hasPlainHeader(token)) return undefined;
    const rules: JWTVerifyOptions = {
      algorithms: [options.algorithm],
      issuer: options.issuer,
      audience: options.audience,
      requiredClaims: ['exp', 'iat', 'sub', 'aud', 'iss'],
      maxTokenAge: AGE_MAX_SECONDS,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      currentDate: new Date(options.clock.now()),
      ...(options.typ !== undefined && { typ: options.typ }),
    };
    try {
      const { payload } =
        typeof key === 'function' ? await jwtVerify(token, key, rules) : await jwtVerify(token, key, rules);
      return principalOf(payload, options);
    } catch (error) {
      // Nobody could say.
      if (error instanceof ServiceError) throw error;
      // jose's errors hold claims, and the reason is nobody's business but the issuer's.
      return undefined;
    }
  };
}

function keyOf({ algorithm, secret, keys }: JwtOptions): Uint8Array | JWTVerifyGetKey {
  if (algorithm === 'HS256') {
    if (secret === undefined) throw new TypeError('HS256 needs a secret');
    const bytes = new TextEncoder().encode(secret.reveal());
    if (bytes.length < SECRET_BYTES_MIN)
      throw new TypeError(`HS256 needs a secret of at least ${String(SECRET_BYTES_MIN)} bytes`);
    return bytes;
  }
  if (keys === undefined) throw new TypeError(`${algorithm} needs the keys of a JWKS`);
  return keys;
}

function hasPlainHeader(token: string): boolean {
  try {
    const header = decodeProtectedHeader(token);
    if (KEY_BEARING.some((name) => name in header)) return false;
    const kid: unknown = header.kid;
    return kid === undefined || (typeof kid === 'string' && KEY_ID.test(kid));
  } catch {
    return false;
  }
}

function principalOf(
  payload: JWTPayload,
  { merchantClaim, scopeClaim }: JwtOptions,
): MerchantPrincipal | undefined {
  const merchant = payload[merchantClaim];
  const merchantId = typeof merchant === 'string' ? parseMerchantId(merchant) : undefined;
  // jose checks that sub is there, not that it is text.
  const subject: unknown = payload.sub;
  if (merchantId === undefined || typeof subject !== 'string' || !SUBJECT.test(subject)) return undefined;
  const claimed = payload[scopeClaim];
  const words: unknown[] =
    typeof claimed === 'string' ? claimed.split(' ') : Array.isArray(claimed) ? claimed : [];
  const scopes = MERCHANT_SCOPES.filter((scope) => words.includes(scope));
  return {
    kind: 'merchant',
    merchantId,
    subject: `jwt:${subject}`,
    scopes,
    expiresAtMs: (endOf(payload) + CLOCK_TOLERANCE_SECONDS) * 1_000,
  };
}

/** The earlier of its own expiry and its greatest age, both before any tolerance; jose checked that both claims are there. Seconds since 1970. */
function endOf({ exp = 0, iat = 0 }: JWTPayload): number {
  return Math.min(exp, iat + AGE_MAX_SECONDS);
}
