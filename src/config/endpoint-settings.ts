import { flag, optional, setting, url } from './setting.ts';

/** Hosts in place of AWS's own. Each may be a private address (a VPC endpoint); AWS's own may not (src/domain/address.ts). */
export const ENDPOINT_SETTINGS = {
  endpointBedrockRuntime: optional(
    'ENDPOINT_BEDROCK_RUNTIME',
    'Replaces the endpoint of Bedrock runtime in every region, e.g. a VPC endpoint.',
    url,
  ),
  endpointBedrock: optional('ENDPOINT_BEDROCK', "Replaces the endpoint of Bedrock's control plane.", url),
  endpointKms: optional('ENDPOINT_KMS', 'Replaces the endpoint of KMS.', url),
  endpointSecretsManager: optional(
    'ENDPOINT_SECRETS_MANAGER',
    'Replaces the endpoint of Secrets Manager.',
    url,
  ),
  endpointSts: optional('ENDPOINT_STS', 'Replaces the endpoint of STS.', url),
  endpointIam: optional('ENDPOINT_IAM', 'Replaces the endpoint of IAM, which is one for all regions.', url),
  endpointCloudWatchLogs: optional(
    'ENDPOINT_CLOUDWATCH_LOGS',
    'Replaces the endpoint of CloudWatch Logs in every region.',
    url,
  ),
  endpointS3: optional('ENDPOINT_S3', 'Replaces the endpoint of S3 in every region.', url),
  privateEndpoints: setting(
    'PRIVATE_ENDPOINTS',
    "AWS's own host names may lead to addresses of a VPC (interface endpoints with private DNS). Without it a name that does is not called.",
    flag,
    'false',
  ),
} as const;
