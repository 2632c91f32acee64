import { KMS_OPERATIONS } from './kms/operations.ts';
import { SECRETS_MANAGER_OPERATIONS } from './secrets-manager/operations.ts';
import { CLOUDWATCH_LOGS_OPERATIONS } from './logs/cloudwatch.ts';
import { getObject, listObjects } from './logs/s3.ts';
import { IAM_OPERATIONS } from './iam/operations.ts';
import { STS_OPERATIONS } from './sts/operations.ts';
import { converse, converseStream } from './bedrock/converse.ts';
import { countTokensOperation } from './bedrock/count-tokens.ts';
import { invokeModel, invokeModelWithResponseStream } from './bedrock/invoke.ts';
import * as models from './bedrock/foundation-models.ts';
import * as profiles from './bedrock/inference-profiles.ts';
import * as provisioned from './bedrock/provisioned.ts';
import type { Call, World } from './call.ts';
import type { Answer } from './wire/answer.ts';
import type { Service } from './wire/errors.ts';
import type { AwsRequest } from './wire/request.ts';

type Operate = (call: Call, world: World) => Answer;

/** What a request asks for, by AWS's names. `operate` is absent when AWS has no such operation, or the stand-in has it not. */
export interface Route {
  service: Service;
  operation: string;
  resource?: string | undefined;
  operate?: Operate | undefined;
}

type RestRow = readonly [service: Service, method: string, path: RegExp, operation: string, operate: Operate];

/** One path segment, as sent: `/` inside an ARN arrives as `%2F`. */
const REST_ROUTES: readonly RestRow[] = [
  ['bedrock-runtime', 'POST', /^\/model\/([^/]+)\/converse$/, 'Converse', converse],
  ['bedrock-runtime', 'POST', /^\/model\/([^/]+)\/converse-stream$/, 'ConverseStream', converseStream],
  ['bedrock-runtime', 'POST', /^\/model\/([^/]+)\/invoke$/, 'InvokeModel', invokeModel],
  [
    'bedrock-runtime',
    'POST',
    /^\/model\/([^/]+)\/invoke-with-response-stream$/,
    'InvokeModelWithResponseStream',
    invokeModelWithResponseStream,
  ],
  ['bedrock-runtime', 'POST', /^\/model\/([^/]+)\/count-tokens$/, 'CountTokens', countTokensOperation],
  ['bedrock', 'GET', /^\/foundation-models$/, 'ListFoundationModels', models.listFoundationModels],
  ['bedrock', 'GET', /^\/foundation-models\/([^/]+)$/, 'GetFoundationModel', models.getFoundationModel],
  [
    'bedrock',
    'GET',
    /^\/foundation-model-availability\/([^/]+)$/,
    'GetFoundationModelAvailability',
    models.getFoundationModelAvailability,
  ],
  ['bedrock', 'GET', /^\/inference-profiles$/, 'ListInferenceProfiles', profiles.listInferenceProfiles],
  ['bedrock', 'GET', /^\/inference-profiles\/([^/]+)$/, 'GetInferenceProfile', profiles.getInferenceProfile],
  ['bedrock', 'POST', /^\/inference-profiles$/, 'CreateInferenceProfile', profiles.createInferenceProfile],
  [
    'bedrock',
    'DELETE',
    /^\/inference-profiles\/([^/]+)$/,
    'DeleteInferenceProfile',
    profiles.deleteInferenceProfile,
  ],
  [
    'bedrock',
    'POST',
    /^\/provisioned-model-throughput$/,
    'CreateProvisionedModelThroughput',
    provisioned.createProvisionedModelThroughput,
  ],
  [
    'bedrock',
    'GET',
    /^\/provisioned-model-throughputs$/,
    'ListProvisionedModelThroughputs',
    provisioned.listProvisionedModelThroughputs,
  ],
  [
    'bedrock',
    'GET',
    /^\/provisioned-model-throughput\/([^/]+)$/,
    'GetProvisionedModelThroughput',
    provisioned.getProvisionedModelThroughput,
  ],
  [
    'bedrock',
    'PATCH',
    /^\/provisioned-model-throughput\/([^/]+)$/,
    'UpdateProvisionedModelThroughput',
    provisioned.updateProvisionedModelThroughput,
  ],
  [
    'bedrock',
    'DELETE',
    /^\/provisioned-model-throughput\/([^/]+)$/,
    'DeleteProvisionedModelThroughput',
    provisioned.deleteProvisionedModelThroughput,
  ],
];

/** `x-amz-target` prefix of the JSON 1.1 services. */
const TARGETS: Readonly<Record<string, { service: Service; operations: Readonly<Record<string, Operate>> }>> =
  {
    TrentService: { service: 'kms', operations: KMS_OPERATIONS },
    secretsmanager: { service: 'secretsmanager', operations: SECRETS_MANAGER_OPERATIONS },
    Logs_20140328: { service: 'logs', operations: CLOUDWATCH_LOGS_OPERATIONS },
  };

/** What tells IAM from STS, which speaks the same protocol. */
const IAM_VERSION = '2010-05-08';

export function routeOf(request: AwsRequest): Route {
  const [prefix = '', operation = ''] = (request.headers['x-amz-target'] ?? '').split('.');
  const target = TARGETS[prefix];
  if (target) return { service: target.service, operation, operate: target.operations[operation] };
  if (request.headers['content-type']?.startsWith('application/x-www-form-urlencoded')) {
    const form = new URLSearchParams(request.body.toString('utf8'));
    const action = form.get('Action') ?? '';
    return form.get('Version') === IAM_VERSION
      ? { service: 'iam', operation: action, operate: IAM_OPERATIONS[action] }
      : { service: 'sts', operation: action, operate: STS_OPERATIONS[action] };
  }
  // A bucket may have any name: only who is signed for tells.
  if (/\/s3\/aws4_request,/.test(request.headers['authorization'] ?? '')) return s3Route(request);
  return restRoute(request);
}

function s3Route({ method, path, query }: AwsRequest): Route {
  if (method !== 'GET') return { service: 's3', operation: 'Unknown' };
  return query.includes('list-type=2')
    ? { service: 's3', operation: 'ListObjectsV2', operate: listObjects }
    : { service: 's3', operation: 'GetObject', operate: path.length > 1 ? getObject : undefined };
}

function restRoute({ method, path }: AwsRequest): Route {
  for (const [service, rowMethod, pattern, operation, operate] of REST_ROUTES) {
    const match = method === rowMethod ? pattern.exec(path) : null;
    const resource = match && decoded(match[1] ?? '');
    if (resource !== null && resource !== undefined) return { service, operation, resource, operate };
  }
  return { service: path.startsWith('/model/') ? 'bedrock-runtime' : 'bedrock', operation: 'Unknown' };
}

function decoded(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}
