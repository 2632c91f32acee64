/** What the start-up does about a variable: see docs/security.md. */
export type Decision = 'refused' | 'allowed';

export interface AmbientGroup {
  /** Variables that come together, with what they would do if somebody heeded them. */
  variables: (trap: AmbientTrap) => Record<string, string>;
  decision: Decision;
}

/** Where a request would land that follows the environment. */
export interface AmbientTrap {
  url: string;
  /** A config and credentials file whose every profile points elsewhere. */
  file: string;
}

const KEYS = { AWS_ACCESS_KEY_ID: 'AKIAAMBIENT000000001', AWS_SECRET_ACCESS_KEY: 'ambient-secret' };

/** Eight groups: 256 combinations. The first four alone are known to beat what the code says outright, if it does not say it well. */
export const GROUPS: readonly AmbientGroup[] = [
  { decision: 'refused', variables: () => ({ AWS_BEARER_TOKEN_BEDROCK: 'ABSKambient' }) },
  {
    decision: 'refused',
    variables: ({ url }) => ({
      AWS_ENDPOINT_URL: url,
      AWS_ENDPOINT_URL_BEDROCK_RUNTIME: url,
      AWS_ENDPOINT_URL_BEDROCK: url,
      AWS_ENDPOINT_URL_KMS: url,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: url,
      AWS_ENDPOINT_URL_STS: url,
    }),
  },
  {
    decision: 'refused',
    variables: ({ file }) => ({
      AWS_PROFILE: 'ambient',
      AWS_CONFIG_FILE: file,
      AWS_SHARED_CREDENTIALS_FILE: file,
    }),
  },
  { decision: 'refused', variables: () => ({ AWS_AUTH_SCHEME_PREFERENCE: 'httpBearerAuth,sigv4' }) },
  // How a workload is given its own identity, and the region of it.
  { decision: 'allowed', variables: () => ({ ...KEYS, AWS_SESSION_TOKEN: 'ambient-session-token' }) },
  { decision: 'allowed', variables: () => ({ AWS_REGION: 'eu-west-1', AWS_DEFAULT_REGION: 'eu-west-1' }) },
  {
    decision: 'refused',
    variables: () => ({
      AWS_MAX_ATTEMPTS: '9',
      AWS_RETRY_MODE: 'adaptive',
      SMITHY_NEW_RETRIES_2026: 'true',
      AWS_USE_FIPS_ENDPOINT: 'true',
      AWS_USE_DUALSTACK_ENDPOINT: 'true',
    }),
  },
  {
    decision: 'refused',
    variables: ({ url }) => ({
      HTTP_PROXY: url,
      HTTPS_PROXY: url,
      http_proxy: url,
      https_proxy: url,
      ALL_PROXY: url,
    }),
  },
];

/** The variables of one of the 2^8 combinations. */
export function combination(number: number, trap: AmbientTrap): Record<string, string> {
  const chosen = GROUPS.filter((_, i) => ((number >> i) & 1) === 1);
  return Object.assign({}, ...chosen.map(({ variables }) => variables(trap))) as Record<string, string>;
}

export const AMBIENT_FILE = ['[default]', '[profile ambient]', '[ambient]']
  .flatMap((head) => [
    head,
    'aws_access_key_id = AKIAAMBIENT000000002',
    'aws_secret_access_key = ambient-of-a-file',
    'auth_scheme_preference = httpBearerAuth',
    'endpoint_url = http://127.0.0.1:9',
    'region = eu-west-1',
    'max_attempts = 9',
  ])
  .join('\n');
