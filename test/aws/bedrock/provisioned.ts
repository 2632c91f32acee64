import { z } from 'zod';
import { modelIdOf } from './model-id.ts';
import { pageOf } from './paging.ts';
import { json } from '../wire/answer.ts';
import { parseBody } from '../wire/body.ts';
import { AwsError, validationError } from '../wire/errors.ts';
import type { OwnedModel } from './owned.ts';
import type { Call, World } from '../call.ts';
import type { Answer } from '../wire/answer.ts';

/** How long a new one is `Creating`. AWS takes minutes; waiting code should meet both states. */
const CREATING_MS = 2_500;

const createShape = z.looseObject({
  modelUnits: z.int().min(1),
  provisionedModelName: z.string().min(1).max(63),
  modelId: z.string(),
  clientRequestToken: z.string().optional(),
  commitmentDuration: z.enum(['OneMonth', 'SixMonths']).optional(),
});
const updateShape = z.looseObject({
  desiredProvisionedModelName: z.string().optional(),
  desiredModelId: z.string().optional(),
});

/** Unlike AWS, any model of the catalogue can be provisioned. */
export function createProvisionedModelThroughput(
  { request, requestId, signer }: Call,
  { bedrock }: World,
): Answer {
  const body = parseBody(createShape, request.body);
  const modelId = modelIdOf(body.modelId);
  if (modelId === undefined) throw validationError('The provided model identifier is invalid.');
  const same = bedrock.owned.find('provisioned-model', body.provisionedModelName, signer);
  const made = bedrock.owned.create(
    {
      kind: 'provisioned-model',
      name: body.provisionedModelName,
      modelId,
      modelUnits: body.modelUnits,
      commitmentDuration: body.commitmentDuration,
    },
    signer,
    body.clientRequestToken ?? requestId,
  );
  if (same && same !== made) {
    bedrock.owned.remove(made);
    throw new AwsError('ConflictException', 'The provisioned model name is already in use.', { status: 400 });
  }
  return json({ provisionedModelArn: made.arn }, { status: 201 });
}

export function getProvisionedModelThroughput(call: Call, world: World): Answer {
  return json(summary(found(call, world)));
}

export function listProvisionedModelThroughputs({ request, signer }: Call, { bedrock }: World): Answer {
  const query = new URLSearchParams(request.query);
  const status = query.get('statusEquals');
  const all = bedrock.owned
    .all('provisioned-model', signer)
    .filter((owned) => owned.name.includes(query.get('nameContains') ?? ''))
    .map(summary)
    .filter((one) => status === null || one.status === status);
  const { page, next } = pageOf(all, query);
  return json({ provisionedModelSummaries: page, ...next });
}

export function updateProvisionedModelThroughput(call: Call, world: World): Answer {
  const body = parseBody(updateShape, call.request.body);
  const owned = found(call, world);
  const modelId = body.desiredModelId === undefined ? owned.modelId : modelIdOf(body.desiredModelId);
  if (modelId === undefined) throw validationError('The provided model identifier is invalid.');
  Object.assign(owned, {
    modelId,
    name: body.desiredProvisionedModelName ?? owned.name,
    updatedAtMs: Date.now(),
  });
  return json({});
}

/** A committed one cannot be deleted: its term is not over within a test run. */
export function deleteProvisionedModelThroughput(call: Call, world: World): Answer {
  const owned = found(call, world);
  if (owned.commitmentDuration !== undefined) {
    throw new AwsError(
      'ConflictException',
      "You can't delete a Provisioned Throughput before its commitment term is over.",
      { status: 400 },
    );
  }
  world.bedrock.owned.remove(owned);
  return json({});
}

function found({ resource = '', signer }: Call, { bedrock }: World): OwnedModel {
  const owned = bedrock.owned.find('provisioned-model', resource, signer);
  if (!owned)
    throw new AwsError('ResourceNotFoundException', 'Could not find the provisioned model.', { status: 404 });
  return owned;
}

function summary(owned: OwnedModel) {
  const modelArn = `arn:aws:bedrock:${owned.region}::foundation-model/${owned.modelId}`;
  return {
    provisionedModelName: owned.name,
    provisionedModelArn: owned.arn,
    modelArn,
    desiredModelArn: modelArn,
    foundationModelArn: modelArn,
    modelUnits: owned.modelUnits,
    desiredModelUnits: owned.modelUnits,
    status: Date.now() - owned.createdAtMs < CREATING_MS ? 'Creating' : 'InService',
    creationTime: new Date(owned.createdAtMs).toISOString(),
    lastModifiedTime: new Date(owned.updatedAtMs).toISOString(),
    ...(owned.commitmentDuration && { commitmentDuration: owned.commitmentDuration }),
  };
}
