import { z } from 'zod';
import { modelIdOf, resolveProfile, serves } from './model-id.ts';
import { pageOf } from './paging.ts';
import { CATALOGUE, GEOGRAPHY_REGIONS } from '../catalogue.ts';
import { json } from '../wire/answer.ts';
import { parseBody } from '../wire/body.ts';
import { AwsError, validationError } from '../wire/errors.ts';
import type { OwnedModel } from './owned.ts';
import type { Call, World } from '../call.ts';
import type { CatalogueModel, Geography } from '../catalogue.ts';
import type { Answer } from '../wire/answer.ts';

/** When every system profile was made. */
const CREATED_AT = '2025-01-01T00:00:00Z';
const GEOGRAPHY_NAMES: Record<Geography, string> = { us: 'US', eu: 'EU', apac: 'APAC', global: 'Global' };

const createShape = z.looseObject({
  inferenceProfileName: z.string().min(1).max(64),
  modelSource: z.looseObject({ copyFrom: z.string() }),
  clientRequestToken: z.string().optional(),
});

export function listInferenceProfiles({ request, signer }: Call, { bedrock }: World): Answer {
  const query = new URLSearchParams(request.query);
  const type = query.get('type') ?? 'SYSTEM_DEFINED';
  const all =
    type === 'APPLICATION'
      ? bedrock.owned.all('application-inference-profile', signer).map(ownSummary)
      : systemProfiles(signer);
  const { page, next } = pageOf(all, query);
  return json({ inferenceProfileSummaries: page, ...next });
}

export function getInferenceProfile({ resource = '', signer }: Call, { bedrock }: World): Answer {
  const own = bedrock.owned.find('application-inference-profile', resource, signer);
  if (own) return json(ownSummary(own));
  const id = resource.replace(/^arn:aws:bedrock:[a-z0-9-]+:\d{12}:inference-profile\//, '');
  const model = resolveProfile(id, signer.region);
  const geography = model?.profiles.find((name) => id.startsWith(`${name}.`));
  if (!model || !geography) throw notFound();
  return json(systemSummary(geography, model, signer));
}

/** An application profile, copied from a model or a system profile: what cost allocation per merchant hangs on. */
export function createInferenceProfile({ request, requestId, signer }: Call, { bedrock }: World): Answer {
  const body = parseBody(createShape, request.body);
  const modelId = modelIdOf(body.modelSource.copyFrom);
  if (modelId === undefined) throw validationError('The provided model identifier is invalid.');
  const made = bedrock.owned.create(
    { kind: 'application-inference-profile', name: body.inferenceProfileName, modelId },
    signer,
    body.clientRequestToken ?? requestId,
  );
  return json({ inferenceProfileArn: made.arn, status: 'ACTIVE' }, { status: 201 });
}

export function deleteInferenceProfile({ resource = '', signer }: Call, { bedrock }: World): Answer {
  const own = bedrock.owned.find('application-inference-profile', resource, signer);
  if (!own) throw notFound();
  bedrock.owned.remove(own);
  return json({});
}

function systemProfiles(signer: Call['signer']): object[] {
  return CATALOGUE.flatMap((model) =>
    model.profiles
      .filter((geography) => serves(geography, signer.region))
      .map((geography) => systemSummary(geography, model, signer)),
  );
}

function systemSummary(
  geography: Geography,
  model: CatalogueModel,
  { region, accountId }: Call['signer'],
): object {
  const id = `${geography}.${model.modelId}`;
  return {
    inferenceProfileName: `${GEOGRAPHY_NAMES[geography]} ${model.modelName}`,
    description: `Routes requests to ${model.modelName} in ${GEOGRAPHY_NAMES[geography]}.`,
    createdAt: CREATED_AT,
    updatedAt: CREATED_AT,
    inferenceProfileArn: `arn:aws:bedrock:${region}:${accountId}:inference-profile/${id}`,
    models: destinations(geography, region).map((to) => ({
      modelArn: `arn:aws:bedrock:${to}::foundation-model/${model.modelId}`,
    })),
    inferenceProfileId: id,
    status: 'ACTIVE',
    type: 'SYSTEM_DEFINED',
  };
}

/** A global profile names the region it is called in, and one without a name for all others. */
export function destinations(geography: Geography, region: string): readonly string[] {
  return geography === 'global' ? [region, ''] : GEOGRAPHY_REGIONS[geography];
}

function ownSummary({ name, arn, region, modelId, createdAtMs, updatedAtMs }: OwnedModel): object {
  return {
    inferenceProfileName: name,
    createdAt: new Date(createdAtMs).toISOString(),
    updatedAt: new Date(updatedAtMs).toISOString(),
    inferenceProfileArn: arn,
    models: [{ modelArn: `arn:aws:bedrock:${region}::foundation-model/${modelId}` }],
    inferenceProfileId: arn.slice(arn.lastIndexOf('/') + 1),
    status: 'ACTIVE',
    type: 'APPLICATION',
  };
}

function notFound(): AwsError {
  return new AwsError('ResourceNotFoundException', 'The inference profile could not be found.', {
    status: 404,
  });
}
