import { z } from 'zod';
import { flag, integer, list, network, optional, setting, text, url } from './setting.ts';

/** Who may call: tokens, JWTs, and how often a stranger may try. */
export const CALLER_SETTINGS = {
  tokenPepperVersion: setting(
    'TOKEN_PEPPER_VERSION',
    'Number of TOKEN_PEPPER; TOKEN_PEPPER_PREVIOUS has the one below, TOKEN_PEPPER_NEXT the one above.',
    integer(1, 1_000_000),
    '1',
  ),
  jwtAlgorithm: optional(
    'JWT_ALGORITHM',
    'Switches JWTs on: HS256 with JWT_SECRET, or RS256, ES256, EdDSA with JWT_JWKS_URL.',
    z.enum(['HS256', 'RS256', 'ES256', 'EdDSA'], 'must be HS256, RS256, ES256 or EdDSA'),
  ),
  jwtIssuer: optional('JWT_ISSUER', 'The only issuer (iss) that is believed.', text),
  jwtAudience: optional('JWT_AUDIENCE', 'What aud must be.', text),
  jwtJwksUrl: optional('JWT_JWKS_URL', 'Where the public keys are.', url),
  jwtMerchantClaim: setting(
    'JWT_MERCHANT_CLAIM',
    'The claim that holds the merchant id.',
    text,
    'merchant_id',
  ),
  jwtScopeClaim: setting(
    'JWT_SCOPE_CLAIM',
    'The claim that holds the scopes, as a list or separated by spaces.',
    text,
    'scope',
  ),
  authDevTokens: setting(
    'AUTH_DEV_TOKENS',
    'Accepts dev_<user>:<merchant> as a token. Refused in production.',
    flag,
    'false',
  ),
  trustedProxies: setting(
    'TRUSTED_PROXIES',
    'Addresses or networks (10.0.0.0/8) of the proxies in front, separated by commas: X-Forwarded-For is believed from them. Without it all clients behind a proxy are one address.',
    list.pipe(z.array(network)),
    '',
  ),
  authFailuresPerAddressMax: setting(
    'AUTH_FAILURES_PER_ADDRESS_MAX',
    'Failed authentications a minute of one address (IPv6: /64), in this process; more are answered 429. A token that was good before is let in all the same.',
    integer(1, 1_000_000),
    '120',
  ),
  authFailuresPerKeyMax: setting(
    'AUTH_FAILURES_PER_KEY_MAX',
    'The same for the id of one key, whoever sends it.',
    integer(1, 1_000_000),
    '20',
  ),
} as const;
