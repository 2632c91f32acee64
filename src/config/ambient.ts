/**
 * Variables that make AWS SDKs sign with another identity, talk to another host, or trust another certificate, whatever the code says.
 * Several of them beat explicit arguments (a bearer token in the environment beats explicit keys), so the service refuses to start with them.
 */
const FORBIDDEN = [
  /^AWS_BEARER_TOKEN_/,
  /^AWS_ENDPOINT_URL/,
  /^AWS_IGNORE_CONFIGURED_ENDPOINT_URLS$/,
  /^AWS_AUTH_SCHEME_PREFERENCE$/,
  /^AWS_(DEFAULT_)?PROFILE$/,
  /^AWS_CONFIG_FILE$/,
  /^AWS_SHARED_CREDENTIALS_FILE$/,
  /^AWS_MAX_ATTEMPTS$/,
  /^AWS_RETRY_MODE$/,
  /^AWS_USE_(FIPS|DUALSTACK)_ENDPOINT$/,
  /^AWS_CA_BUNDLE$/,
  /^SMITHY_NEW_RETRIES_2026$/,
  /^NODE_TLS_REJECT_UNAUTHORIZED$/,
  /^NODE_EXTRA_CA_CERTS$/,
  /^https?_proxy$/i,
  /^all_proxy$/i,
] as const;

/** What lets somebody look into the process, where the secrets are. */
const LOOKING_IN = /--(inspect|heapsnapshot-signal|heapsnapshot-near-heap-limit)/;

/** What no name in ALLOW_AMBIENT_AWS lets through in production: with it, whoever is on the way reads every secret that is sent. */
const NEVER_IN_PRODUCTION: ReadonlySet<string> = new Set(['NODE_TLS_REJECT_UNAUTHORIZED']);

/** One sentence for each forbidden variable that is set and not, or not here, allowed by name. Values are never shown. */
export function ambientProblems(
  env: Readonly<Record<string, string | undefined>>,
  allowed: readonly string[],
  environment?: string,
): string[] {
  const isFinal = (name: string) => environment === 'production' && NEVER_IN_PRODUCTION.has(name);
  return Object.keys(env)
    .filter((name) => isDangerous(name, env[name] ?? ''))
    .filter((name) => isFinal(name) || !allowed.includes(name))
    .map((name) =>
      isFinal(name)
        ? `${name} is set: connections would trust any certificate. Unset it; in production ALLOW_AMBIENT_AWS does not allow it`
        : `${name} is set: it can redirect or re-sign calls to AWS, or open this process to others. Unset it, or name it in ALLOW_AMBIENT_AWS if you mean it`,
    );
}

function isDangerous(name: string, value: string): boolean {
  if (name === 'NODE_OPTIONS') return LOOKING_IN.test(value);
  return value !== '' && FORBIDDEN.some((pattern) => pattern.test(name));
}
