import { z } from 'zod';
import { BEDROCK_REGIONS } from '../domain/region.ts';
import { AUDIT_SETTINGS } from './audit-settings.ts';
import { CALLER_SETTINGS } from './caller-settings.ts';
import { CAPACITY_SETTINGS } from './capacity-settings.ts';
import { ENDPOINT_SETTINGS } from './endpoint-settings.ts';
import { ROTATION_SETTINGS } from './rotation-settings.ts';
import { flag, integer, list, optional, principalArn, region, setting, text } from './setting.ts';
import type { Setting, Value } from './setting.ts';

/** Every setting that is not a secret. The order is that of .env.example, which a test holds equal. */
export const SETTINGS = {
  environment: setting(
    'NODE_ENV',
    'production, development or test. Development allows plain-http endpoints and dev tokens.',
    z.enum(['production', 'development', 'test'], 'must be production, development or test'),
    'production',
  ),
  host: setting('HOST', 'Address to listen on. 0.0.0.0 in a container.', text, '127.0.0.1'),
  port: setting(
    'PORT',
    'Port to listen on; 0 takes a free one. HTTP/1.1 and HTTP/2 share it.',
    integer(0, 65_535),
    '8080',
  ),
  tlsCertFile: optional(
    'TLS_CERT_FILE',
    'PEM certificate chain. With TLS_KEY_FILE it switches TLS with ALPN on.',
    text,
  ),
  tlsKeyFile: optional('TLS_KEY_FILE', 'PEM private key.', text),
  databaseConnectionsMax: setting(
    'DATABASE_CONNECTIONS_MAX',
    'Postgres connections of this process.',
    integer(2, 500),
    '20',
  ),
  databaseTimeoutMs: setting(
    'DATABASE_TIMEOUT_MS',
    'Milliseconds. Longest statement.',
    integer(100, 60_000),
    '5000',
  ),
  spoolDirectory: optional(
    'SPOOL_DIRECTORY',
    'A directory on a disk that outlives the process, where settlements wait while Postgres is away. Replicas may share it. Unset: they are tried again for some seconds.',
    text,
  ),
  spoolBytesMax: setting(
    'SPOOL_BYTES_MAX',
    'Bytes. With more than this waiting, new paid calls are refused; a settlement takes about 400.',
    integer(65_536, 100_000_000_000),
    '67108864',
  ),

  awsRegion: setting('AWS_REGION', "Region of the vault's KMS key and Secrets Manager.", region),
  deployment: setting(
    'DEPLOYMENT_NAME',
    'Names this deployment in secret names and encryption contexts: what one deployment stored, another cannot open. Never change it.',
    z.string().regex(/^[a-z0-9-]{1,32}$/, 'must be at most 32 characters of a-z, 0-9 and -'),
    'main',
  ),
  vaultKmsKeyId: setting(
    'VAULT_KMS_KEY_ID',
    'KMS key (ARN, id or alias/...) that wraps the data keys of stored credentials.',
    text,
  ),
  enabledRegions: setting(
    'ENABLED_REGIONS',
    'Regions merchants may call, separated by commas.',
    list.pipe(z.array(region).min(1)),
    BEDROCK_REGIONS.join(','),
  ),
  vaultTimeoutMs: setting(
    'VAULT_TIMEOUT_MS',
    'Milliseconds. For one attempt at KMS, Secrets Manager or STS. Of the first two three are made, of STS two.',
    integer(50, 60_000),
    '3000',
  ),
  ...AUDIT_SETTINGS,
  ...ENDPOINT_SETTINGS,
  servicePrincipalArn: optional(
    'SERVICE_PRINCIPAL_ARN',
    "ARN of this service's own role or user, as merchants' trust policies name it. Unset: AWS is asked; needed where the role has a path.",
    principalArn,
  ),
  allowAmbientAws: setting(
    'ALLOW_AMBIENT_AWS',
    'Names of AWS_* and proxy variables that may stay in the environment although they can redirect or re-sign calls, separated by commas. NODE_TLS_REJECT_UNAUTHORIZED may not in production.',
    list,
    '',
  ),

  serviceDefaultsEnabled: setting(
    'SERVICE_DEFAULTS_ENABLED',
    "Lets merchants who are allowed to use the service's own AWS account.",
    flag,
    'false',
  ),
  serviceDefaultRegion: optional('SERVICE_DEFAULT_REGION', "Region of the service's own account.", region),

  credentialRotationDays: setting(
    'CREDENTIAL_ROTATION_DAYS',
    'Days a stored key is used before it is due to be exchanged: an alert then, and once more at 120 %. 0: never. Roles are never due.',
    integer(0, 3_650),
    '90',
  ),
  ...CALLER_SETTINGS,

  ...CAPACITY_SETTINGS,
  clientPoolMax: setting(
    'CLIENT_POOL_MAX',
    'SDK clients kept: one per merchant, credential version and region.',
    integer(1, 1_000_000),
    '2000',
  ),
  openedCredentialsMax: setting(
    'OPENED_CREDENTIALS_MAX',
    'Stored credentials kept open in memory.',
    integer(1, 1_000_000),
    '10000',
  ),
  openedCredentialsTtlMs: setting(
    'OPENED_CREDENTIALS_TTL_MS',
    'Milliseconds. How long a stored credential stays open in memory.',
    integer(0, 3_600_000),
    '300000',
  ),
  openedCredentialsStaleMs: setting(
    'OPENED_CREDENTIALS_STALE_MS',
    'Milliseconds. How much longer it may be used while KMS or Secrets Manager does not answer and the database says that it is still current. 0 turns that off.',
    integer(0, 3_600_000),
    '900000',
  ),
  leftoverSecretsAfterMs: setting(
    'LEFTOVER_SECRETS_AFTER_MS',
    'Milliseconds. A secret whose credential was not committed by then is removed from Secrets Manager.',
    integer(60_000, 1_000_000_000),
    '3600000',
  ),
  ...ROTATION_SETTINGS,
  rememberedMax: setting(
    'REMEMBERED_MAX',
    'API keys, and merchants, that a process remembers between calls; what changed is noticed by the ledger.',
    integer(1, 10_000_000),
    '20000',
  ),
  connectTimeoutMs: setting(
    'UPSTREAM_CONNECT_TIMEOUT_MS',
    'Milliseconds. To reach AWS.',
    integer(10, 600_000),
    '3000',
  ),
  firstByteTimeoutMs: setting(
    'UPSTREAM_FIRST_BYTE_TIMEOUT_MS',
    'Milliseconds. From sending to the first byte; for calls without streaming that is the whole generation.',
    integer(10, 3_600_000),
    '300000',
  ),
  idleTimeoutMs: setting(
    'UPSTREAM_IDLE_TIMEOUT_MS',
    'Milliseconds. Between two pieces of an answer; a caller that takes nothing of one for so long is cut.',
    integer(10, 600_000),
    '60000',
  ),
  totalTimeoutMs: setting(
    'UPSTREAM_TOTAL_TIMEOUT_MS',
    'Milliseconds. For one call in all.',
    integer(10, 3_600_000),
    '600000',
  ),
  drainTimeoutMs: setting(
    'DRAIN_TIMEOUT_MS',
    'Milliseconds. How long a stream is read on for its usage after the client left.',
    integer(0, 600_000),
    '30000',
  ),
  revocationLookMs: setting(
    'REVOCATION_LOOK_MS',
    'Milliseconds. How often running streams and exports are asked after: one whose key, credential or merchant was revoked ends at the next look, which takes as long as Postgres does. Ten seconds are kept while both together are no longer.',
    integer(50, 8_000),
    '5000',
  ),
  shutdownDelayMs: setting(
    'SHUTDOWN_DELAY_MS',
    'Milliseconds. How long calls are still taken after SIGTERM while readiness already fails, so that load balancers notice first.',
    integer(0, 600_000),
    '5000',
  ),
  shutdownGraceMs: setting(
    'SHUTDOWN_GRACE_MS',
    'Milliseconds. How long running calls may go on after SIGTERM.',
    integer(0, 600_000),
    '60000',
  ),
  logLevel: setting(
    'LOG_LEVEL',
    'fatal, error, warn, info or debug.',
    z.enum(
      ['silent', 'fatal', 'error', 'warn', 'info', 'debug'],
      'must be fatal, error, warn, info, debug or silent',
    ),
    'info',
  ),
} as const satisfies Record<string, Setting<unknown>>;

/** The settings as values. Optional ones are undefined when not set. */
export type Config = { readonly [K in keyof typeof SETTINGS]: Value<(typeof SETTINGS)[K]> };
