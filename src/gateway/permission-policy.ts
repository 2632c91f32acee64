import type { Standing } from '../bedrock/model-standing.ts';
import { leastPrivilegePolicy } from '../bedrock/policy.ts';
import type { PolicyTarget, PolicyUse } from '../bedrock/policy.ts';
import type { CredentialKind } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { PermissionReport } from './permission-ask.ts';

/** The policy for everything that was asked about and can be named, and what cannot. */
export function policyOf(
  asked: readonly { modelId: string; region: string; standing: Standing }[],
  uses: readonly PolicyUse[],
  kind: CredentialKind,
): Pick<PermissionReport, 'policy' | 'notInPolicy'> {
  const targets: PolicyTarget[] = [];
  const notInPolicy: { modelId: string; region: string; why: string }[] = [];
  for (const { modelId, region, standing } of asked) {
    const { target, noTarget, finding } = standing;
    if (target !== undefined && canBeNamed(target)) targets.push(target);
    else notInPolicy.push({ modelId, region, why: noTarget ?? finding?.why ?? 'A policy cannot name it.' });
  }
  // A Bedrock API key is good for nothing without the right to be called with.
  const wanted: readonly PolicyUse[] = kind === 'bedrock-api-key' ? [...uses, 'bearer'] : uses;
  return { policy: leastPrivilegePolicy({ targets, uses: wanted }), notInPolicy };
}

/** Ids are checked loosely, so that every model of AWS can be called; what stands in a policy is checked strictly. */
function canBeNamed(target: PolicyTarget): boolean {
  try {
    leastPrivilegePolicy({ targets: [target], uses: [] });
    return true;
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'model.id_invalid') return false;
    throw error;
  }
}
