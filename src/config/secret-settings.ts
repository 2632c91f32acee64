import { z } from 'zod';
import { optional, setting, text } from './setting.ts';
import type { Setting, Value } from './setting.ts';

const key32 = z.string().transform((value, context) => {
  const key = Buffer.from(value, 'base64');
  if (key.length === 32 && new Set(key).size > 8) return key;
  context.addIssue('must be 32 random bytes in base64 (make one with: openssl rand -base64 32)');
  return z.NEVER;
});
const postgresUrl = z
  .string()
  .refine((value) => /^postgres(ql)?:\/\//.test(value) && URL.canParse(value), 'must be a postgres:// URL');

/** Every secret. Each can also be given as a file: NAME_FILE holds its path. Never in the config file. */
export const SECRET_SETTINGS = {
  databaseUrl: setting(
    'DATABASE_URL',
    'postgres:// URL of a login that has the role merchant_bedrock_app and nothing more.',
    postgresUrl,
  ),
  tokenPepper: setting(
    'TOKEN_PEPPER',
    '32 bytes in base64. Keys the hashes of API keys: without it no token is accepted.',
    key32,
  ),
  tokenPepperPrevious: optional(
    'TOKEN_PEPPER_PREVIOUS',
    'The pepper of the version before, while tokens hashed with it live on (npm run keys -- status counts them).',
    key32,
  ),
  tokenPepperNext: optional(
    'TOKEN_PEPPER_NEXT',
    'The pepper of the version after, accepted before any replica hashes with it (docs/operations.md, Keys of the service).',
    key32,
  ),
  sessionKey: setting(
    'SESSION_KEY',
    '32 bytes in base64. Seals the sessions that carry direct credentials.',
    key32,
  ),
  sessionKeyPrevious: optional(
    'SESSION_KEY_PREVIOUS',
    'Another session key that is accepted and does not seal: first the next one, until every replica accepts it, then the one before (docs/operations.md, Keys of the service).',
    key32,
  ),
  jwtSecret: optional(
    'JWT_SECRET',
    'At least 32 characters; for HS256 only.',
    z.string().min(32, 'must have at least 32 characters'),
  ),
  serviceAccessKeyId: optional(
    'SERVICE_AWS_ACCESS_KEY_ID',
    "Keys with which the service reaches KMS and Secrets Manager. Unset: the workload's own identity (recommended).",
    text,
  ),
  serviceSecretAccessKey: optional('SERVICE_AWS_SECRET_ACCESS_KEY', 'The secret of that key.', text),
  serviceSessionToken: optional(
    'SERVICE_AWS_SESSION_TOKEN',
    'The session token of that key, if it has one.',
    text,
  ),
  serviceDefaultAccessKeyId: optional(
    'SERVICE_DEFAULT_ACCESS_KEY_ID',
    "Keys of the service's own Bedrock account, for SERVICE_DEFAULTS_ENABLED.",
    text,
  ),
  serviceDefaultSecretAccessKey: optional(
    'SERVICE_DEFAULT_SECRET_ACCESS_KEY',
    'The secret of that key.',
    text,
  ),
  serviceDefaultSessionToken: optional(
    'SERVICE_DEFAULT_SESSION_TOKEN',
    'The session token of that key, if it has one.',
    text,
  ),
} as const satisfies Record<string, Setting<unknown>>;

/** The secrets as values, before they go into `Secret`s. */
export type SecretValues = {
  readonly [K in keyof typeof SECRET_SETTINGS]: Value<(typeof SECRET_SETTINGS)[K]>;
};
