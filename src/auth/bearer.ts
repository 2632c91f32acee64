import { Strategy } from 'passport-http-bearer';
import type { Principal } from '../domain/principal.ts';
import type { ApiKeys } from './api-keys.ts';
import { parseDevToken } from './dev-tokens.ts';
import type { Attempt, FailureBudget, Gone } from './failure-budget.ts';
import type { VerifyJwt } from './jwt.ts';

export interface BearerFrom {
  remembered: boolean;
  /** Of the client, past the proxies that are trusted. */
  address: string;
  gone?: Gone;
}

/**
 * Whose token this is; undefined when it is nobody's.
 * @throws ServiceError auth.too_many_failures | auth.unavailable | request.aborted | ledger.unavailable
 */
export type VerifyBearer = (token: string, from: BearerFrom) => Promise<Principal | undefined>;

export interface BearerParts {
  apiKeys: Pick<ApiKeys, 'verify' | 'verifyRemembered' | 'inMemory'>;
  failures: Pick<FailureBudget, 'begin'>;
  jwt?: VerifyJwt;
  devTokens: boolean;
}

const NOBODY: ReturnType<ApiKeys['inMemory']> = { seems: 'bad' };
const JWT_FORM = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/;

/**
 * One kind of token, one verifier: its form decides, and a token that one refuses is not shown to another.
 * Who fails too often is refused before the database is asked. A token that this process has seen to be good is never refused for
 * what others send from the same address or for the same key; nor is one that needs no database, if it is good. Where nobody can say, it is
 * no failure.
 */
export function newBearerVerifier(parts: BearerParts): VerifyBearer {
  return async (token, from) => {
    const isOurs = !isDev(token, parts) && !JWT_FORM.test(token);
    const local = isOurs ? undefined : await ofAnother(token, parts);
    if (local !== undefined) return local;
    const known = isOurs ? parts.apiKeys.inMemory(token) : NOBODY;
    return known.seems === 'good' ? ofOurs(token, parts, from) : attempt(token, known, parts, from);
  };
}

function isDev(token: string, { devTokens }: BearerParts): boolean {
  return devTokens && token.startsWith('dev_');
}

/** Kinds of token that are verified without the database. */
async function ofAnother(token: string, parts: BearerParts): Promise<Principal | undefined> {
  return isDev(token, parts) ? parseDevToken(token) : parts.jwt?.(token);
}

function ofOurs(
  token: string,
  { apiKeys }: BearerParts,
  { remembered }: BearerFrom,
): Promise<Principal | undefined> {
  return remembered ? apiKeys.verifyRemembered(token) : apiKeys.verify(token);
}

/** One that may fail, within the budget of who sends it. */
async function attempt(
  token: string,
  known: ReturnType<ApiKeys['inMemory']>,
  parts: BearerParts,
  from: BearerFrom,
): Promise<Principal | undefined> {
  const done = await parts.failures.begin(from.address, known.key, from.gone);
  let went: Attempt = 'open';
  try {
    const principal = known.seems === 'bad' ? undefined : await ofOurs(token, parts, from);
    went = principal === undefined ? 'failed' : 'passed';
    return principal;
  } finally {
    done(went);
  }
}

/** The same as a passport strategy. It takes tokens from query and body too, so it is shown neither (http/steps/authenticate.ts). */
export function newBearerStrategy(
  verify: (token: string, shown: Omit<BearerFrom, 'remembered'>) => Promise<Principal | undefined>,
) {
  const options = { realm: 'merchant-bedrock', passReqToCallback: true } as const;
  return new Strategy(options, (shown: unknown, token: string, done: Done) => {
    verify(token, shown as Omit<BearerFrom, 'remembered'>).then(
      (principal) => {
        done(null, principal ?? false);
      },
      (error: unknown) => {
        done(error);
      },
    );
  });
}

type Done = (error: unknown, user?: Principal | false) => void;
