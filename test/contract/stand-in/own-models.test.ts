import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  CreateInferenceProfileCommand,
  CreateProvisionedModelThroughputCommand,
  DeleteInferenceProfileCommand,
  DeleteProvisionedModelThroughputCommand,
  GetInferenceProfileCommand,
  GetProvisionedModelThroughputCommand,
  ListInferenceProfilesCommand,
  ListProvisionedModelThroughputsCommand,
  UpdateProvisionedModelThroughputCommand,
} from '@aws-sdk/client-bedrock';
import { InvokeModelCommand } from '@aws-sdk/client-bedrock-runtime';
import { BOB, bedrockClient, refusal, runtimeClient, startWithMerchants } from './clients.ts';
import type { BedrockClient } from '@aws-sdk/client-bedrock';
import type { StandIn } from '../../aws/stand-in.ts';
import { eventually } from '../../support/until.ts';

const TITAN = 'amazon.titan-text-lite-v1';
let standIn: StandIn;
let bedrock: BedrockClient;
beforeAll(async () => {
  standIn = await startWithMerchants();
  bedrock = bedrockClient(standIn);
});
afterAll(() => standIn.close());

/** Titan's body is understood only when Titan stands behind the ARN. */
const invoke = (modelId: string) =>
  runtimeClient(standIn).send(new InvokeModelCommand({ modelId, body: '{"inputText":"hi"}' }));

test('provisioned throughput, from creation to deletion', async () => {
  const input = {
    provisionedModelName: 'pt-one',
    modelId: TITAN,
    modelUnits: 1,
    clientRequestToken: 'token-1',
  };
  const { provisionedModelArn = '' } = await bedrock.send(new CreateProvisionedModelThroughputCommand(input));
  expect(provisionedModelArn).toMatch(
    /^arn:aws:bedrock:us-east-1:111111111111:provisioned-model\/[a-z0-9]{12}$/,
  );
  expect((await bedrock.send(new CreateProvisionedModelThroughputCommand(input))).provisionedModelArn).toBe(
    provisionedModelArn,
  );
  const again = bedrock.send(
    new CreateProvisionedModelThroughputCommand({ ...input, clientRequestToken: 'token-2' }),
  );
  expect(await refusal(again)).toMatchObject({ name: 'ConflictException' });

  const get = () =>
    bedrock.send(new GetProvisionedModelThroughputCommand({ provisionedModelId: provisionedModelArn }));
  expect(await get()).toMatchObject({ status: 'Creating', modelUnits: 1 });
  expect(await eventually(get, ({ status }) => status !== 'Creating')).toMatchObject({ status: 'InService' });
  await expect(invoke(provisionedModelArn)).resolves.toBeDefined();

  await bedrock.send(
    new UpdateProvisionedModelThroughputCommand({
      provisionedModelId: provisionedModelArn,
      desiredProvisionedModelName: 'pt-two',
    }),
  );
  const list = (client: BedrockClient) =>
    client.send(new ListProvisionedModelThroughputsCommand({ nameContains: 'two' }));
  expect((await list(bedrock)).provisionedModelSummaries).toHaveLength(1);
  expect((await list(bedrockClient(standIn, BOB))).provisionedModelSummaries).toHaveLength(0);

  await bedrock.send(
    new DeleteProvisionedModelThroughputCommand({ provisionedModelId: provisionedModelArn }),
  );
  expect(await refusal(get())).toMatchObject({ name: 'ResourceNotFoundException', status: 404 });
});

test('a committed one stays', async () => {
  const input = {
    provisionedModelName: 'committed',
    modelId: TITAN,
    modelUnits: 1,
    commitmentDuration: 'OneMonth' as const,
  };
  const { provisionedModelArn: provisionedModelId } = await bedrock.send(
    new CreateProvisionedModelThroughputCommand(input),
  );
  expect(
    await refusal(bedrock.send(new DeleteProvisionedModelThroughputCommand({ provisionedModelId }))),
  ).toMatchObject({ name: 'ConflictException' });
});

test('an application profile stands for the model it was copied from', async () => {
  const copyFrom = `arn:aws:bedrock:us-east-1::foundation-model/${TITAN}`;
  const { inferenceProfileArn = '' } = await bedrock.send(
    new CreateInferenceProfileCommand({ inferenceProfileName: 'merchant-1', modelSource: { copyFrom } }),
  );
  await expect(invoke(inferenceProfileArn)).resolves.toBeDefined();
  const listed = await bedrock.send(new ListInferenceProfilesCommand({ typeEquals: 'APPLICATION' }));
  expect(listed.inferenceProfileSummaries).toMatchObject([
    { inferenceProfileName: 'merchant-1', models: [{ modelArn: copyFrom }] },
  ]);
  const inferenceProfileIdentifier = inferenceProfileArn;
  expect(await bedrock.send(new GetInferenceProfileCommand({ inferenceProfileIdentifier }))).toMatchObject({
    type: 'APPLICATION',
  });
  await bedrock.send(new DeleteInferenceProfileCommand({ inferenceProfileIdentifier }));
  expect(
    await refusal(bedrock.send(new GetInferenceProfileCommand({ inferenceProfileIdentifier }))),
  ).toMatchObject({ status: 404 });
});

test('a declared ARN stands for what it was declared to be', async () => {
  const arn = 'arn:aws:bedrock:us-east-1:111111111111:provisioned-model/declared0001';
  standIn.addModelArn(arn, TITAN);
  await expect(invoke(arn)).resolves.toBeDefined();
});
