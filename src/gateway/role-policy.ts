import { parseModelId } from '../bedrock/model-id.ts';
import type { ModelRef } from '../bedrock/model-id.ts';
import type { PolicyDocument } from '../credentials/trust-policy.ts';
import { profileOf } from '../ledger/price-book.ts';

const INVOKE = ['bedrock:InvokeModel', 'bedrock:InvokeModelWithResponseStream'];
const DESCRIBE = [
  'bedrock:GetFoundationModel',
  'bedrock:GetInferenceProfile',
  'bedrock:GetProvisionedModelThroughput',
];
const DISCOVER = [
  'bedrock:ListFoundationModels',
  'bedrock:ListInferenceProfiles',
  'bedrock:GetFoundationModelAvailability',
];

interface Resources {
  /** What calls name. */
  named: string[];
  /** Models that may be called through `profiles` only. */
  behind: string[];
  profiles: string[];
}

/**
 * What the role of a merchant is to allow: these models in this region, or all of it where none is named. The account is `*`: the policy is
 * attached in the account of the role, which is not known before the role is there.
 * @throws ServiceError model.id_invalid: what stands in a policy must not be a pattern.
 */
export function rolePolicyFor(models: readonly string[], region: string): PolicyDocument {
  const parts =
    models.length === 0 ? [everythingIn(region)] : models.map((id) => of(parseModelId(id), region));
  const [named, behind, profiles] = (['named', 'behind', 'profiles'] as const).map((part) =>
    [...new Set(parts.flatMap((resources) => resources[part]))].sort(),
  ) as [string[], string[], string[]];
  return {
    Version: '2012-10-17',
    Statement: [
      { Sid: 'Call', Effect: 'Allow', Action: INVOKE, Resource: named },
      ...(behind.length === 0
        ? []
        : [
            {
              Sid: 'ModelsBehindProfilesOnly',
              Effect: 'Allow',
              Action: INVOKE,
              Resource: behind,
              Condition: { ArnLike: { 'bedrock:InferenceProfileArn': profiles } },
            },
          ]),
      { Sid: 'Count', Effect: 'Allow', Action: ['bedrock:CountTokens'], Resource: [modelArn('*', region)] },
      { Sid: 'Describe', Effect: 'Allow', Action: DESCRIBE, Resource: [...named, ...behind] },
      { Sid: 'Discover', Effect: 'Allow', Action: DISCOVER, Resource: ['*'] },
    ],
  };
}

function everythingIn(region: string): Resources {
  const profiles = ['inference-profile', 'application-inference-profile'].map(
    (kind) => `arn:aws:bedrock:${region}:*:${kind}/*`,
  );
  const own = ['provisioned-model', 'custom-model-deployment', 'imported-model'].map(
    (kind) => `arn:aws:bedrock:${region}:*:${kind}/*`,
  );
  return { named: [modelArn('*', region), ...profiles, ...own], behind: [modelArn('*', '*')], profiles };
}

function of({ id, kind, resource = '' }: ModelRef, region: string): Resources {
  if (kind === 'arn') return resource.endsWith('inference-profile') ? throughProfile(id, '*') : only(id);
  const { modelId, profile } = profileOf(id);
  if (profile !== 'in-region')
    return throughProfile(`arn:aws:bedrock:${region}:*:inference-profile/${id}`, modelId);
  return id.includes('.') ? only(modelArn(id, region)) : only(`arn:aws:bedrock:${region}:*:*/${id}`);
}

function only(arn: string): Resources {
  return { named: [arn], behind: [], profiles: [] };
}

/** A profile may send a call to any region it reaches, and a global one to a model without a region. */
function throughProfile(arn: string, modelId: string): Resources {
  return { named: [arn], behind: [modelArn(modelId, '*')], profiles: [arn] };
}

function modelArn(modelId: string, region: string): string {
  return `arn:aws:bedrock:${region}::foundation-model/${modelId}`;
}
