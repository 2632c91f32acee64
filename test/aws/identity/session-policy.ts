import { z } from 'zod';
import { AwsError } from '../wire/errors.ts';

const oneOrMore = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => (typeof value === 'string' ? [value] : value));
const statementShape = z.looseObject({
  Effect: z.enum(['Allow', 'Deny']),
  Action: oneOrMore,
  Resource: oneOrMore,
});
const policyShape = z.looseObject({
  Statement: z
    .union([statementShape, z.array(statementShape)])
    .transform((value) => (Array.isArray(value) ? value : [value])),
});

/** What a session policy leaves of a role's permissions. Conditions are not evaluated: a statement counts as if they held. */
export type SessionPolicy = z.infer<typeof policyShape>['Statement'];

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

/** Whether every resource is allowed and none denied. No resources: the action alone decides. */
export function permits(policy: SessionPolicy, action: string, resources: readonly string[]): boolean {
  return (resources.length > 0 ? resources : [undefined]).every((resource) => {
    const effects = policy
      .filter((statement) => statement.Action.some((pattern) => like(pattern, action)))
      .filter(
        (statement) =>
          resource === undefined || statement.Resource.some((pattern) => like(pattern, resource)),
      )
      .map((statement) => statement.Effect);
    return effects.includes('Allow') && !effects.includes('Deny');
  });
}

/** IAM's `*` and `?`; without regard to case, which IAM grants to actions only and does no harm to lower-case ARNs. */
export function like(pattern: string, text: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 'i').test(text);
}
