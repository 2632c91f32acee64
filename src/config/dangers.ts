import type { SecretValues } from './secret-settings.ts';
import type { Config } from './settings.ts';

/** Settings that are each legal but wrong together, or wrong in production. */
export function dangers(config: Config, secrets: SecretValues): string[] {
  return [
    ...tlsProblems(config),
    ...keyPairProblems(config, secrets),
    ...jwtProblems(config, secrets),
    ...productionProblems(config),
  ];
}

function tlsProblems(config: Config): string[] {
  if ((config.tlsCertFile === undefined) === (config.tlsKeyFile === undefined)) return [];
  return ['TLS_CERT_FILE and TLS_KEY_FILE go together: set both or none'];
}

function keyPairProblems(config: Config, secrets: SecretValues): string[] {
  const problems: string[] = [];
  if ((secrets.serviceAccessKeyId === undefined) !== (secrets.serviceSecretAccessKey === undefined))
    problems.push(
      'SERVICE_AWS_ACCESS_KEY_ID and SERVICE_AWS_SECRET_ACCESS_KEY go together: set both or none',
    );
  const pair =
    secrets.serviceDefaultAccessKeyId !== undefined && secrets.serviceDefaultSecretAccessKey !== undefined;
  if (config.serviceDefaultsEnabled && !(pair && config.serviceDefaultRegion !== undefined))
    problems.push(
      'SERVICE_DEFAULTS_ENABLED needs SERVICE_DEFAULT_ACCESS_KEY_ID, SERVICE_DEFAULT_SECRET_ACCESS_KEY and SERVICE_DEFAULT_REGION',
    );
  if (
    config.serviceDefaultRegion !== undefined &&
    !config.enabledRegions.includes(config.serviceDefaultRegion)
  )
    problems.push('SERVICE_DEFAULT_REGION is not among ENABLED_REGIONS');
  return problems;
}

function jwtProblems(config: Config, secrets: SecretValues): string[] {
  if (config.jwtAlgorithm === undefined) return [];
  const problems: string[] = [];
  if (config.jwtIssuer === undefined || config.jwtAudience === undefined)
    problems.push('JWT_ALGORITHM needs JWT_ISSUER and JWT_AUDIENCE');
  if (config.jwtAlgorithm === 'HS256' && secrets.jwtSecret === undefined)
    problems.push('JWT_ALGORITHM=HS256 needs JWT_SECRET');
  if (config.jwtAlgorithm !== 'HS256' && config.jwtJwksUrl === undefined)
    problems.push(`JWT_ALGORITHM=${config.jwtAlgorithm} needs JWT_JWKS_URL`);
  return problems;
}

function productionProblems(config: Config): string[] {
  if (config.environment !== 'production') return [];
  const problems: string[] = [];
  if (config.authDevTokens)
    problems.push('AUTH_DEV_TOKENS=true is refused in production: anyone could name any merchant');
  const urls: Record<string, string | undefined> = {
    ENDPOINT_BEDROCK_RUNTIME: config.endpointBedrockRuntime,
    ENDPOINT_BEDROCK: config.endpointBedrock,
    ENDPOINT_KMS: config.endpointKms,
    ENDPOINT_SECRETS_MANAGER: config.endpointSecretsManager,
    ENDPOINT_STS: config.endpointSts,
    ENDPOINT_IAM: config.endpointIam,
    ENDPOINT_CLOUDWATCH_LOGS: config.endpointCloudWatchLogs,
    ENDPOINT_S3: config.endpointS3,
    JWT_JWKS_URL: config.jwtJwksUrl,
  };
  for (const [name, value] of Object.entries(urls))
    if (value !== undefined && !value.startsWith('https://'))
      problems.push(`${name} must be https in production`);
  return problems;
}
