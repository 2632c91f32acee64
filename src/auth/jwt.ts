import { createRemoteJWKSet, customFetch, decodeProtectedHeader, jwtVerify } from 'jose';
import type { JWTPayload, JWTVerifyGetKey, JWTVerifyOptions } from 'jose';
import type { Clock } from '../domain/clock.ts';
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
  /** For HS256. */
  secret?: Secret;
  /** For the others. Only ever this URL: what a token says about where its key is, is not read. */
  jwksUrl?: string;
  clock: Clock;
}

export type VerifyJwt = (token: string) => Promise<MerchantPrincipal | undefined>;

/** A token must not be older than this, whatever its own expiry says. */
const AGE_MAX = '60 min';
const CLOCK_TOLERANCE_SECONDS = 30;
const JWKS_BYTES_MAX = 256 * 1024;
const JWKS_TIMEOUT_MS = 3_000;
/** Between two fetches because of an unknown key id: a flood of them does not become a flood of fetches. */
const JWKS_COOLDOWN_MS = 30_000;
const KEY_ID = /^[A-Za-z0-9._-]{1,128}$/;
const SUBJECT = /^[\x21-\x7e]{1,128}$/;
/** Headers by which a token could bring or point to its own key. */
const KEY_BEARING = ['jku', 'jwk', 'x5u', 'x5c', 'crit'] as const;

/**
 * Verifies JWTs of one issuer: one algorithm, one place for keys, exp, iat, sub, aud and iss required.
 * The result of every failure is the same undefined.
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
      maxTokenAge: AGE_MAX,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      currentDate: new Date(options.clock.now()),
    };
    try {
      const { payload } =
        typeof key === 'function' ? await jwtVerify(token, key, rules) : await jwtVerify(token, key, rules);
      return principalOf(payload, options);
    } catch {
      // jose's errors hold claims, and the reason is nobody's business but the issuer's.
      return undefined;
    }
  };
}

function keyOf({ algorithm, secret, jwksUrl }: JwtOptions): Uint8Array | JWTVerifyGetKey {
  if (algorithm === 'HS256') {
    if (secret === undefined) throw new TypeError('HS256 needs a secret');
    return new TextEncoder().encode(secret.reveal());
  }
  if (jwksUrl === undefined) throw new TypeError(`${algorithm} needs the URL of a JWKS`);
  return createRemoteJWKSet(new URL(jwksUrl), {
    timeoutDuration: JWKS_TIMEOUT_MS,
    cooldownDuration: JWKS_COOLDOWN_MS,
    [customFetch]: fetchBounded,
  });
}

/** No redirects, and no more bytes than a key set can need. */
async function fetchBounded(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, { ...init, redirect: 'error' });
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += (chunk as Uint8Array).byteLength;
    if (length > JWKS_BYTES_MAX) throw new Error('the key set is too large');
    chunks.push(chunk as Uint8Array);
  }
  return new Response(Buffer.concat(chunks), { status: response.status, headers: response.headers });
}

function hasPlainHeader(token: string): boolean {
  try {
    const header = decodeProtectedHeader(token);
    if (KEY_BEARING.some((name) => name in header)) return false;
    return header.kid === undefined || KEY_ID.test(header.kid);
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
  if (merchantId === undefined || payload.sub === undefined || !SUBJECT.test(payload.sub)) return undefined;
  const claimed = payload[scopeClaim];
  const words: unknown[] =
    typeof claimed === 'string' ? claimed.split(' ') : Array.isArray(claimed) ? claimed : [];
  const scopes = MERCHANT_SCOPES.filter((scope) => words.includes(scope));
  return { kind: 'merchant', merchantId, subject: `jwt:${payload.sub}`, scopes };
}
