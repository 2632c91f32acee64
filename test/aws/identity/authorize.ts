import { decide, like } from './session-policy.ts';
import type { IamResource, SessionPolicy } from './session-policy.ts';
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
 * Refuses what the key's `deny` list names, and what its own policy or that of its session does not allow.
 * GetCallerIdentity needs no permission, at AWS either.
 * @throws AwsError AccessDeniedException (AccessDenied on STS and IAM)
 */
export function authorize(
  signer: Signer,
  service: Service,
  operation: string,
  resources: readonly IamResource[],
): void {
  const action = iamAction(service, operation);
  if (action === 'sts:GetCallerIdentity') return;
  const who = `User: ${signer.arn} is not authorized to perform: ${action}`;
  for (const resource of resources.length > 0 ? resources : [undefined]) {
    const on = resource === undefined ? who : `${who} on resource: ${resource.arn}`;
    if (signer.deny.some((pattern) => like(pattern, action)))
      throw accessDenied(service, `${on} because no identity-based policy allows the ${action} action`);
    for (const [kind, policy] of policiesOf(signer)) {
      const decision = decide(policy, action, resource);
      if (decision === 'implicit')
        throw accessDenied(service, `${on} because no ${kind} policy allows the ${action} action`);
      if (decision === 'explicit')
        throw accessDenied(service, `${on} with an explicit deny in ${articled(kind)} policy`);
    }
  }
}

function policiesOf({ policy, sessionPolicy }: Signer): [kind: string, SessionPolicy][] {
  return [
    ...(policy ? [['identity-based', policy] as [string, SessionPolicy]] : []),
    ...(sessionPolicy ? [['session', sessionPolicy] as [string, SessionPolicy]] : []),
  ];
}

function articled(kind: string): string {
  return /^[aeiou]/.test(kind) ? `an ${kind}` : `a ${kind}`;
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
