import { modelIdOf } from './model-id.ts';
import { catalogueModel } from '../catalogue.ts';
import { destinations } from './inference-profiles.ts';
import type { OwnedModels } from './owned.ts';
import type { Geography } from '../catalogue.ts';
import type { Signer } from '../identity/key-ring.ts';
import type { IamResource } from '../identity/session-policy.ts';
import type { Route } from '../routes.ts';

/** What a policy must allow for a request: `*` for the operations that know no resource. */
export function resourcesOf(
  { service, operation, resource }: Route,
  signer: Signer,
  owned: OwnedModels,
): IamResource[] {
  if (service === 'bedrock-runtime') return iamResources(resource ?? '', signer, owned);
  if (service !== 'bedrock') return [];
  return [{ arn: describedResource(operation, resource ?? '', signer) }];
}

/**
 * The ARNs that a policy must allow for a call with this model identifier: for a profile, the profile and the foundation model in
 * every region that it may route to.
 */
function iamResources(id: string, { region, accountId }: Signer, owned: OwnedModels): IamResource[] {
  const short = id.slice(id.lastIndexOf('/') + 1);
  const application = id.includes(':application-inference-profile/') ? owned.modelBehind(id) : undefined;
  if (application !== undefined) return [{ arn: id }, { arn: modelArn(region, application), profile: id }];
  const modelId = modelIdOf(short);
  if (modelId === undefined) return [{ arn: id }];
  if (catalogueModel(short)) return [{ arn: modelArn(region, modelId) }];
  const geography = short.slice(0, short.indexOf('.')) as Geography;
  const profile = `arn:aws:bedrock:${region}:${accountId}:inference-profile/${short}`;
  return [
    { arn: profile },
    ...destinations(geography, region).map((to) => ({ arn: modelArn(to, modelId), profile })),
  ];
}

function describedResource(operation: string, id: string, { region, accountId }: Signer): string {
  if (id.startsWith('arn:')) return id;
  if (operation === 'GetFoundationModel') return modelArn(region, id);
  const own = `arn:aws:bedrock:${region}:${accountId}`;
  if (operation === 'GetInferenceProfile')
    return `${own}:${id.includes('.') ? 'inference-profile' : 'application-inference-profile'}/${id}`;
  return operation === 'GetProvisionedModelThroughput' ? `${own}:provisioned-model/${id}` : '*';
}

function modelArn(region: string, modelId: string): string {
  return `arn:aws:bedrock:${region}::foundation-model/${modelId}`;
}
