import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  GetFoundationModelAvailabilityCommand,
  GetFoundationModelCommand,
  GetInferenceProfileCommand,
  ListFoundationModelsCommand,
  ListInferenceProfilesCommand,
} from '@aws-sdk/client-bedrock';
import { ALICE, CLAUDE, NOVA, bedrockClient, refusal, startWithMerchants } from './clients.ts';
import type { BedrockClient } from '@aws-sdk/client-bedrock';
import type { StandIn } from '../../aws/stand-in.ts';

let standIn: StandIn;
let bedrock: BedrockClient;
beforeAll(async () => {
  standIn = await startWithMerchants();
  bedrock = bedrockClient(standIn);
});
afterAll(() => standIn.close());

test('foundation models, filtered', async () => {
  const list = async (input: object) =>
    (await bedrock.send(new ListFoundationModelsCommand(input))).modelSummaries ?? [];
  expect((await list({})).length).toBeGreaterThanOrEqual(20);
  const embed = await list({ byOutputModality: 'EMBEDDING', byProvider: 'cohere' });
  expect(embed.map((model) => model.modelId)).toEqual([
    'cohere.embed-english-v3',
    'cohere.embed-multilingual-v3',
  ]);
  expect((await list({ byInferenceType: 'ON_DEMAND' })).map((model) => model.modelId)).not.toContain(
    'anthropic.claude-sonnet-4-20250514-v1:0',
  );
});

test('one foundation model, by id and by ARN', async () => {
  const arn = `arn:aws:bedrock:us-east-1::foundation-model/${NOVA}`;
  for (const modelIdentifier of [NOVA, arn]) {
    const { modelDetails } = await bedrock.send(new GetFoundationModelCommand({ modelIdentifier }));
    expect(modelDetails).toMatchObject({
      modelArn: arn,
      providerName: 'Amazon',
      responseStreamingSupported: true,
    });
  }
  expect(
    await refusal(bedrock.send(new GetFoundationModelCommand({ modelIdentifier: 'no.model' }))),
  ).toMatchObject({
    name: 'ResourceNotFoundException',
    status: 404,
  });
});

test('availability', async () => {
  const answer = await bedrock.send(new GetFoundationModelAvailabilityCommand({ modelId: NOVA }));
  expect(answer).toMatchObject({
    modelId: NOVA,
    authorizationStatus: 'AUTHORIZED',
    regionAvailability: 'AVAILABLE',
  });
});

test('inference profiles of the region, page by page', async () => {
  const ids: string[] = [];
  let nextToken: string | undefined;
  do {
    const page = await bedrock.send(
      new ListInferenceProfilesCommand({ maxResults: 5, nextToken, typeEquals: 'SYSTEM_DEFINED' }),
    );
    ids.push(...(page.inferenceProfileSummaries ?? []).map((profile) => profile.inferenceProfileId ?? ''));
    nextToken = page.nextToken;
  } while (nextToken);
  expect(ids).toContain(CLAUDE);
  expect(new Set(ids.map((id) => id.split('.')[0]))).toEqual(new Set(['us', 'global']));
});

test('one inference profile, with the models it routes to', async () => {
  const profile = await bedrock.send(new GetInferenceProfileCommand({ inferenceProfileIdentifier: CLAUDE }));
  expect(profile.inferenceProfileArn).toBe(
    `arn:aws:bedrock:us-east-1:${ALICE.accountId}:inference-profile/${CLAUDE}`,
  );
  expect(profile.models?.length).toBeGreaterThan(1);
  expect(
    await refusal(
      bedrock.send(
        new GetInferenceProfileCommand({ inferenceProfileIdentifier: 'eu.amazon.nova-lite-v1:0' }),
      ),
    ),
  ).toMatchObject({ status: 404 });
});
