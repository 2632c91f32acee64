import { Strategy } from 'passport-http-bearer';
import type { Principal } from '../domain/principal.ts';
import type { ApiKeys } from './api-keys.ts';
import { parseDevToken } from './dev-tokens.ts';
import type { VerifyJwt } from './jwt.ts';

/** Whose token this is; undefined when it is nobody's. */
export type VerifyBearer = (token: string, how: { remembered: boolean }) => Promise<Principal | undefined>;

export interface BearerParts {
  apiKeys: Pick<ApiKeys, 'verify' | 'verifyRemembered'>;
  jwt?: VerifyJwt;
  devTokens: boolean;
}

const JWT_FORM = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/;

/** One kind of token, one verifier: its form decides, and a token that one refuses is not shown to another. */
export function newBearerVerifier({ apiKeys, jwt, devTokens }: BearerParts): VerifyBearer {
  return async (token, how) => {
    if (devTokens && token.startsWith('dev_')) return parseDevToken(token);
    if (JWT_FORM.test(token)) return jwt?.(token);
    return how.remembered ? apiKeys.verifyRemembered(token) : apiKeys.verify(token);
  };
}

/** The same as a passport strategy. It takes tokens from query and body too, so it is shown neither (http/steps/authenticate.ts). */
export function newBearerStrategy(verify: (token: string) => Promise<Principal | undefined>) {
  return new Strategy({ realm: 'merchant-bedrock' }, (token: string, done: Done) => {
    verify(token).then(
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
