import { newJwtVerifier } from './auth/jwt.ts';
import type { Secrets } from './config/secrets.ts';
import type { Config } from './config/settings.ts';
import type { Clock } from './domain/clock.ts';

/** The verifier of JWTs, where the settings name one. A part of container.ts. */
export function buildJwt(config: Config, secrets: Secrets, clock: Clock) {
  const { jwtAlgorithm: algorithm, jwtIssuer: issuer, jwtAudience: audience, jwtJwksUrl: jwksUrl } = config;
  if (algorithm === undefined || issuer === undefined || audience === undefined) return {};
  const jwt = newJwtVerifier({
    algorithm,
    issuer,
    audience,
    merchantClaim: config.jwtMerchantClaim,
    scopeClaim: config.jwtScopeClaim,
    clock,
    ...(secrets.jwtSecret && { secret: secrets.jwtSecret }),
    ...(jwksUrl !== undefined && { jwksUrl }),
  });
  return { jwt };
}
