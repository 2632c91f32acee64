import type { IncomingHttpHeaders } from 'node:http';
import type { Request, RequestHandler } from 'express';
import { Passport } from 'passport';
import { newBearerStrategy } from '../../auth/bearer.ts';
import type { VerifyBearer } from '../../auth/bearer.ts';
import { TOKEN_SCAN_PATTERN } from '../../auth/token.ts';
import { nothingDone, ServiceError } from '../../domain/errors.ts';
import type { ServiceErrorOptions } from '../../domain/errors.ts';
import type { Principal } from '../../domain/principal.ts';
import { carriedBy, goneSignal } from './begin.ts';

/** Ours have 78 characters, JWTs up to two thousand. */
const TOKEN_LENGTH_MAX = 4_096;
const BEARER = /^Bearer +([\x21-\x7e]+)$/i;

/**
 * Says who is calling. A token comes in the Authorization header, or in x-api-key (Anthropic's older clients), and nowhere else.
 * passport-http-bearer would also take it from query and body, where proxies log it: those are refused before it is asked, and it is shown
 * a request that has neither.
 */
export function authenticate(verify: VerifyBearer, how: { remembered: boolean }): RequestHandler {
  const passport = new Passport();
  passport.use(
    'bearer',
    newBearerStrategy((token, { address, gone }) =>
      verify(token, { ...how, address, ...(gone && { gone }) }),
    ),
  );
  return (req, res, next) => {
    let token: string;
    try {
      token = tokenOf(req);
    } catch (error) {
      next(error);
      return;
    }
    const headers = { authorization: `Bearer ${token}` };
    const shown = { headers, address: req.ip ?? '', gone: () => goneSignal(res) } as unknown as Request;
    const decide = (error: unknown, principal?: Principal | false): void => {
      if (error !== null && error !== undefined) next(nothingDone(error));
      else if (principal === false || principal === undefined) next(notAccepted());
      else {
        carriedBy(res).principal = principal;
        next();
      }
    };
    const run = passport.authenticate('bearer', { session: false }, decide) as RequestHandler;
    run(shown, res, next);
  };
}

/** @throws ServiceError auth.* | request.invalid */
function tokenOf(req: Request): string {
  refuseMisplaced(req);
  refuseDoubled(req);
  const { authorization } = req.headers;
  if (authorization === undefined) return fromApiKeyHeader(req.headers);
  // AWS4-HMAC-SHA256, and AWS4-ECDSA-P256-SHA256 of multi-region signing.
  if (/^AWS4-/i.test(authorization)) throw signatureNotTaken();
  const token = BEARER.exec(authorization)?.[1];
  if (!/^Bearer( |$)/i.test(authorization)) throw notAccepted({ challenge: 'bare' });
  if (token === undefined || token.length > TOKEN_LENGTH_MAX) throw notAccepted();
  return token;
}

function fromApiKeyHeader(headers: IncomingHttpHeaders): string {
  const key = headers['x-api-key'];
  if (key === undefined) throw new ServiceError('auth.missing_token', 'Send Authorization: Bearer <token>.');
  if (typeof key !== 'string' || key.length > TOKEN_LENGTH_MAX || !/^[\x21-\x7e]+$/.test(key))
    throw notAccepted();
  return key;
}

/** Node keeps the first Authorization and drops the rest, so a proxy could believe another one. The server refuses this before (protocol.ts). */
function refuseDoubled(req: Request): void {
  const names = req.rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  if (names.indexOf('authorization') === names.lastIndexOf('authorization')) return;
  throw new ServiceError('request.invalid', 'The header authorization was sent more than once.', {
    challenge: 'invalid_request',
  });
}

/** Nobody sends both a token in the right place and one in the wrong place by intent; either way the wrong place is logged somewhere. */
function refuseMisplaced(req: Request): void {
  const inQuery = hasTokenInQuery(req.url);
  const inForm =
    req.headers['content-type']?.toLowerCase().startsWith('application/x-www-form-urlencoded') === true;
  if (!inQuery && !inForm) return;
  throw new ServiceError(
    'auth.token_in_wrong_place',
    inQuery
      ? 'A token in the query ends up in logs. Send it as Authorization: Bearer <token>, and revoke this one.'
      : 'Forms are not accepted here, and a token never in one. Send Authorization: Bearer <token>.',
  );
}

/** The name of RFC 6750 in any case and nesting, as parsers of all kinds would read it; and a token of ours under any name. */
function hasTokenInQuery(target: string): boolean {
  const at = target.indexOf('?');
  if (at === -1) return false;
  const query = new URLSearchParams(target.slice(at + 1).replaceAll(';', '&'));
  return [...query].some(
    ([name, value]) => /\baccess_token\b/i.test(name) || TOKEN_SCAN_PATTERN.test(`${name}=${value}`),
  );
}

function notAccepted(options: ServiceErrorOptions = {}): ServiceError {
  return new ServiceError(
    'auth.invalid_token',
    'This token is not valid: it may be mistyped, expired or revoked. Send Authorization: Bearer <token> with a current one.',
    options,
  );
}

function signatureNotTaken(): ServiceError {
  return new ServiceError(
    'auth.sigv4_not_supported',
    "This service takes its own token, not an AWS signature. Set AWS_BEARER_TOKEN_BEDROCK to the token; in code, give the JavaScript SDK token and authSchemePreference: ['httpBearerAuth'].",
  );
}
