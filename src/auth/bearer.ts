import { Strategy } from 'passport-http-bearer';
import type { Principal } from '../domain/principal.ts';
import type { ApiKeys } from './api-keys.ts';
import { parseDevToken } from './dev-tokens.ts';
import type { Attempt, FailureBudget } from './failure-budget.ts';
import type { VerifyJwt } from './jwt.ts';

export interface BearerFrom {
  remembered: boolean;
  /** Of the client, past the proxies that are trusted. */
  address: string;
}

/** Whose token this is; undefined when it is nobody's. @throws ServiceError auth.too_many_failures | ledger.unavailable */
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
 * what others send from the same address or for the same key; nor is one that needs no database, if it is good.
 */
export function newBearerVerifier({ apiKeys, jwt, devTokens, failures }: BearerParts): VerifyBearer {
  return async (token, { remembered, address }) => {
    const isDev = devTokens && token.startsWith('dev_');
    const isOurs = !isDev && !JWT_FORM.test(token);
    const local = isDev ? parseDevToken(token) : isOurs ? undefined : await jwt?.(token);
    if (local !== undefined) return local;
    const known = isOurs ? apiKeys.inMemory(token) : NOBODY;
    const verify = () => (remembered ? apiKeys.verifyRemembered(token) : apiKeys.verify(token));
    if (known.seems === 'good') return verify();
    const done = await failures.begin(address, known.key);
    let attempt: Attempt = 'open';
    try {
      const principal = known.seems === 'bad' ? undefined : await verify();
      attempt = principal === undefined ? 'failed' : 'passed';
      return principal;
    } finally {
      done(attempt);
    }
  };
}

/** The same as a passport strategy. It takes tokens from query and body too, so it is shown neither (http/steps/authenticate.ts). */
export function newBearerStrategy<Shown>(
  verify: (token: string, shown: Shown) => Promise<Principal | undefined>,
) {
  const options = { realm: 'merchant-bedrock', passReqToCallback: true } as const;
  return new Strategy(options, (shown: unknown, token: string, done: Done) => {
    verify(token, shown as Shown).then(
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
