import { parseModelId } from '../bedrock/model-id.ts';
import type { ModelRef } from '../bedrock/model-id.ts';
import type { PolicyDocument } from '../bedrock/policy-document.ts';
import { foundationModelArn, policyOf } from '../bedrock/policy.ts';
import type { PolicyParts } from '../bedrock/policy.ts';
import { profileOf } from '../ledger/price-book.ts';

const NOTHING: PolicyParts = { models: [], profiles: [], behind: [], counted: [] };

/**
 * What the role of a merchant is to allow: these models in this region, or all of it where none is named. The account is `*`: the policy is
 * attached in the account of the role, which is not known before the role is there. Guard rails are not among it.
 * @throws ServiceError model.id_invalid: what stands in a policy must not be a pattern.
 */
export function rolePolicyFor(models: readonly string[], region: string): PolicyDocument {
  const each =
    models.length === 0 ? [everythingIn(region)] : models.map((id) => of(parseModelId(id), region));
  const all = (part: keyof PolicyParts) => each.flatMap((parts) => parts[part]);
  const parts = {
    models: all('models'),
    profiles: all('profiles'),
    behind: all('behind'),
    counted: all('counted'),
  };
  return policyOf(parts, ['invoke', 'stream', 'count-tokens', 'describe', 'discover']);
}

function everythingIn(region: string): PolicyParts {
  const arnsOf = (kinds: readonly string[]) => kinds.map((kind) => `arn:aws:bedrock:${region}:*:${kind}/*`);
  const here = foundationModelArn('*', region);
  return {
    models: [here, ...arnsOf(['provisioned-model', 'custom-model-deployment', 'imported-model'])],
    profiles: arnsOf(['inference-profile', 'application-inference-profile']),
    behind: [foundationModelArn('*', '*')],
    counted: [here],
  };
}

function of({ id, kind, resource = '' }: ModelRef, region: string): PolicyParts {
  if (kind === 'arn')
    return resource.endsWith('inference-profile') ? throughProfile(id, '*', region) : only(id);
  const { modelId, profile } = profileOf(id);
  if (profile !== 'in-region')
    return throughProfile(`arn:aws:bedrock:${region}:*:inference-profile/${id}`, modelId, region);
  return only(id.includes('.') ? foundationModelArn(id, region) : `arn:aws:bedrock:${region}:*:*/${id}`);
}

/** AWS counts for foundation models alone. */
function only(arn: string): PolicyParts {
  return { ...NOTHING, models: [arn], counted: arn.includes(':foundation-model/') ? [arn] : [] };
}

/** A profile may send a call to any region it reaches, and a global one to a model without a region; tokens are counted where it is called. */
function throughProfile(arn: string, modelId: string, region: string): PolicyParts {
  return {
    ...NOTHING,
    profiles: [arn],
    behind: [foundationModelArn(modelId, '*')],
    counted: [foundationModelArn(modelId, region)],
  };
}
