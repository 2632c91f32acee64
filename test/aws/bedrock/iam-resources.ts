import { modelIdOf } from './model-id.ts';
import { GEOGRAPHY_REGIONS, catalogueModel } from '../catalogue.ts';
import type { Geography } from '../catalogue.ts';
import type { Signer } from '../identity/key-ring.ts';

/**
 * The ARNs that a policy must allow for a call with this model identifier: for a profile, the profile and the foundation model in
 * every region that it may route to.
 */
export function iamResources(id: string, { region, accountId }: Signer): string[] {
  const short = id.slice(id.lastIndexOf('/') + 1);
  const modelId = modelIdOf(short);
  const owned = id.startsWith('arn:') && modelId === undefined;
  if (owned || modelId === undefined) return [id];
  if (catalogueModel(short)) return [modelArn(region, modelId)];
  const geography = short.slice(0, short.indexOf('.')) as Geography;
  const profile = `arn:aws:bedrock:${region}:${accountId}:inference-profile/${short}`;
  return [profile, ...GEOGRAPHY_REGIONS[geography].map((to) => modelArn(to, modelId))];
}

function modelArn(region: string, modelId: string): string {
  return `arn:aws:bedrock:${region}::foundation-model/${modelId}`;
}
