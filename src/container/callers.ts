import { ApiKeyStore } from '../auth/api-key-store.ts';
import { ApiKeys } from '../auth/api-keys.ts';
import { newBearerVerifier } from '../auth/bearer.ts';
import { FailureBudget } from '../auth/failure-budget.ts';
import { remoteKeys } from '../auth/jwks-out.ts';
import { newJwtVerifier } from '../auth/jwt.ts';
import { TokenHasher } from '../auth/token-hash.ts';
import { TokenRehash } from '../auth/token-rehash.ts';
import type { Pepper } from '../auth/token-hash.ts';
import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

/** Who may call: API keys, operators' keys, JWTs where the settings name an issuer. */
export function buildCallers(config: Config, secrets: Secrets, { clock, monotonic, database, logger }: Base) {
  const apiKeyStore = new ApiKeyStore(database);
  const hasher = new TokenHasher(peppersOf(config, secrets));
  const rehash = new TokenRehash({
    store: apiKeyStore,
    hasher,
    onFailed: (keyId, error) => {
      logger.warn('token not hashed anew: its next use tries again', { keyId, ...errorFields(error) });
    },
  });
  const apiKeys = new ApiKeys({
    store: apiKeyStore,
    clock,
    hasher,
    rehash,
    rememberedMax: config.rememberedMax,
    environment: config.environment === 'production' ? 'live' : 'test',
  });
  const jwt = buildJwt(config, secrets, { clock, monotonic, logger });
  const failures = new FailureBudget({
    clock: monotonic,
    perAddressMax: config.authFailuresPerAddressMax,
    perKeyMax: config.authFailuresPerKeyMax,
  });
  const verify = newBearerVerifier({
    apiKeys,
    failures,
    ...(jwt && { jwt }),
    devTokens: config.authDevTokens,
  });
  return { apiKeyStore, apiKeys, rehash, verify };
}

function peppersOf(config: Config, secrets: Secrets): [Pepper, ...Pepper[]] {
  const version = config.tokenPepperVersion;
  const { tokenPepperPrevious: previous, tokenPepperNext: next } = secrets;
  return [
    { version, key: secrets.tokenPepper },
    ...(previous ? [{ version: version - 1, key: previous }] : []),
    ...(next ? [{ version: version + 1, key: next }] : []),
  ];
}

function buildJwt(
  config: Config,
  secrets: Secrets,
  { clock, monotonic, logger }: Pick<Base, 'clock' | 'monotonic' | 'logger'>,
) {
  const { jwtAlgorithm: algorithm, jwtIssuer: issuer, jwtAudience: audience, jwtJwksUrl: jwksUrl } = config;
  if (algorithm === undefined || issuer === undefined || audience === undefined) return undefined;
  return newJwtVerifier({
    algorithm,
    issuer,
    audience,
    merchantClaim: config.jwtMerchantClaim,
    scopeClaim: config.jwtScopeClaim,
    clock,
    ...(secrets.jwtSecret && { secret: secrets.jwtSecret }),
    ...(jwksUrl !== undefined && {
      keys: remoteKeys(jwksUrl, {
        clock: monotonic,
        onAway: (error) => {
          logger.error('key set of JWT_JWKS_URL cannot be fetched', errorFields(error));
        },
        onBack: () => {
          logger.info('key set of JWT_JWKS_URL can be fetched again');
        },
      }),
    }),
  });
}
