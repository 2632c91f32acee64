import { like, permits } from './session-policy.ts';
import { AwsError } from '../wire/errors.ts';
import type { Service } from '../wire/errors.ts';
import type { Signer } from './key-ring.ts';

/** Operations whose IAM action has another name; the rest are `<prefix>:<Operation>`. */
const ACTION_OF: Readonly<Record<string, string>> = {
  Converse: 'InvokeModel',
  ConverseStream: 'InvokeModelWithResponseStream',
  ListObjectsV2: 'ListBucket',
};

function iamAction(service: Service, operation: string): string {
  const prefix = service === 'bedrock-runtime' ? 'bedrock' : service;
  return `${prefix}:${ACTION_OF[operation] ?? operation}`;
}

/**
 * Refuses what the key's `deny` list names and what its session policy does not allow.
 * GetCallerIdentity needs no permission, at AWS either.
 * @throws AwsError AccessDeniedException (AccessDenied on STS and IAM)
 */
export function authorize(
  signer: Signer,
  service: Service,
  operation: string,
  resources: readonly string[],
): void {
  const action = iamAction(service, operation);
  if (action === 'sts:GetCallerIdentity') return;
  const who = `User: ${signer.arn} is not authorized to perform: ${action}`;
  if (signer.deny.some((pattern) => like(pattern, action))) {
    throw accessDenied(service, `${who} because no identity-based policy allows the ${action} action`);
  }
  if (signer.sessionPolicy && !permits(signer.sessionPolicy, action, resources)) {
    throw accessDenied(service, `${who} because no session policy allows the ${action} action`);
  }
}

export function accessDenied(service: Service, message: string): AwsError {
  const json11 = service === 'kms' || service === 'secretsmanager' || service === 'logs';
  return new AwsError(
    service === 'sts' || service === 'iam' || service === 's3' ? 'AccessDenied' : 'AccessDeniedException',
    message,
    {
      status: json11 ? 400 : 403,
    },
  );
}
