import { randomBytes } from 'node:crypto';
import type { StandIn } from '../aws/stand-in.ts';
import { AWS } from './aws-keys.ts';

/** The keys with which the service itself reaches KMS and Secrets Manager, and its own Bedrock account. */
export function registerServiceAccount(standIn: StandIn): { arn: string } {
  standIn.addAccessKey(AWS.service);
  standIn.addAccessKey(AWS.serviceDefault);
  return standIn.addKmsKey({
    keyId: '11111111-2222-3333-4444-555555555555',
    alias: 'alias/vault',
    accountId: AWS.service.accountId,
    region: 'us-east-1',
  });
}

/** The environment of a service that talks to the stand-in. */
export function environmentFor(databaseUrl: string, standInUrl: string, kmsKeyArn: string) {
  return {
    NODE_ENV: 'test',
    PORT: '0',
    DATABASE_URL: databaseUrl,
    TOKEN_PEPPER: randomBytes(32).toString('base64'),
    SESSION_KEY: randomBytes(32).toString('base64'),
    AWS_REGION: 'us-east-1',
    VAULT_KMS_KEY_ID: kmsKeyArn,
    SERVICE_AWS_ACCESS_KEY_ID: AWS.service.accessKeyId,
    SERVICE_AWS_SECRET_ACCESS_KEY: AWS.service.secretAccessKey,
    SERVICE_DEFAULTS_ENABLED: 'true',
    SERVICE_DEFAULT_REGION: 'us-east-1',
    SERVICE_DEFAULT_ACCESS_KEY_ID: AWS.serviceDefault.accessKeyId,
    SERVICE_DEFAULT_SECRET_ACCESS_KEY: AWS.serviceDefault.secretAccessKey,
    ENDPOINT_BEDROCK_RUNTIME: standInUrl,
    ENDPOINT_BEDROCK: standInUrl,
    ENDPOINT_KMS: standInUrl,
    ENDPOINT_SECRETS_MANAGER: standInUrl,
    ENDPOINT_STS: standInUrl,
    ENDPOINT_IAM: standInUrl,
    ENDPOINT_CLOUDWATCH_LOGS: standInUrl,
    ENDPOINT_S3: standInUrl,
    SHUTDOWN_GRACE_MS: '5000',
    SHUTDOWN_DELAY_MS: '0',
  };
}
