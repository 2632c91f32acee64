import { z } from 'zod';
import { AwsError } from '../wire/errors.ts';

const oneOrMore = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => (typeof value === 'string' ? [value] : value));
const statementShape = z.looseObject({
  Effect: z.enum(['Allow', 'Deny']),
  Action: oneOrMore,
  Resource: oneOrMore,
  Condition: z.record(z.string(), z.record(z.string(), oneOrMore)).optional(),
});
const policyShape = z.looseObject({
  Statement: z
    .union([statementShape, z.array(statementShape)])
    .transform((value) => (Array.isArray(value) ? value : [value])),
});

/** The statements of a policy: of an identity, or of a session, which leaves of a role's permissions only what both allow. */
export type SessionPolicy = z.infer<typeof policyShape>['Statement'];

/** What a call needs, and through which inference profile it needs it. */
export interface IamResource {
  arn: string;
  profile?: string;
}

/** @throws AwsError MalformedPolicyDocument, also for NotAction and NotResource, which the stand-in does not read */
export function parsePolicy(text: string): SessionPolicy {
  try {
    return policyShape.parse(JSON.parse(text)).Statement;
  } catch {
    throw new AwsError('MalformedPolicyDocument', 'The policy is not in the valid JSON format.', {
      status: 400,
    });
  }
}

export type Decision = 'allowed' | 'implicit' | 'explicit';

/** What a policy says of one resource; `implicit` is a denial by silence. No resource: the action alone decides. */
export function decide(policy: SessionPolicy, action: string, resource: IamResource | undefined): Decision {
  const effects = policy
    .filter((statement) => statement.Action.some((pattern) => like(pattern, action)))
    .filter(
      (statement) =>
        resource === undefined || statement.Resource.some((pattern) => like(pattern, resource.arn)),
    )
    .filter((statement) => holds(statement.Condition, resource))
    .map((statement) => statement.Effect);
  if (effects.includes('Deny')) return 'explicit';
  return effects.includes('Allow') ? 'allowed' : 'implicit';
}

/** Of conditions the stand-in knows those on the inference profile; what it does not know is not fulfilled. */
function holds(condition: SessionPolicy[number]['Condition'], resource: IamResource | undefined): boolean {
  return Object.entries(condition ?? {}).every(
    ([operator, keys]) =>
      /^(Arn|String)(Equals|Like)$/.test(operator) &&
      Object.entries(keys).every(
        ([key, patterns]) =>
          key.toLowerCase() === 'bedrock:inferenceprofilearn' &&
          resource?.profile !== undefined &&
          patterns.some((pattern) => like(pattern, resource.profile ?? '')),
      ),
  );
}

/** IAM's `*` and `?`; without regard to case, which IAM grants to actions only and does no harm to lower-case ARNs. */
export function like(pattern: string, text: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'i').test(text);
}
