import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { BedrockModels } from '../../src/bedrock/models-aws.ts';
import type { AwsCredential } from '../../src/domain/credential.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { accessKey, apiKey, register, resolved } from './runtime-aws-setup.ts';

let aws: StandIn;
let models: BedrockModels;
const key = accessKey('modelsa');
const bearer = apiKey('modelsa');
const limits = { socketsMax: 10, connectMs: 1_500, firstByteMs: 1_500, totalMs: 3_000 };

beforeAll(async () => {
  aws = await startStandIn();
  register(aws, key);
  register(aws, bearer);
  models = new BedrockModels({ ...limits, endpoint: aws.url });
});
afterEach(() => {
  aws.forget();
});
afterAll(async () => {
  await models[Symbol.asyncDispose]();
  await aws.close();
});

function getModel(modelId: string, credential: AwsCredential = key) {
  return models.getModel({
    resolved: resolved(credential, 'k'),
    modelId,
    signal: new AbortController().signal,
  });
}

test.each([
  ['amazon.nova-micro-v1:0', 'foundation-model', 'amazon.nova-micro-v1:0'],
  [
    'arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0',
    'foundation-model',
    'amazon.nova-micro-v1:0',
  ],
  ['us.amazon.nova-micro-v1:0', 'inference-profile', 'us.amazon.nova-micro-v1:0'],
  [
    'arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.amazon.nova-micro-v1:0',
    'inference-profile',
    'us.amazon.nova-micro-v1:0',
  ],
])('%s is a known %s', async (asked, kind, modelId) => {
  for (const credential of [key, bearer]) {
    expect(await getModel(asked, credential)).toMatchObject({ kind, modelId, status: 'ACTIVE' });
  }
  expect(aws.journal.every(({ verified, service }) => verified && service === 'bedrock')).toBe(true);
});

test('what runs behind a profile or provisioned throughput', async () => {
  const nova = { modelId: 'amazon.nova-micro-v1:0' };
  expect((await getModel('us.amazon.nova-micro-v1:0'))?.runs).toEqual({ ...nova, profile: 'geographic' });
  const owned = 'arn:aws:bedrock:us-east-1:111122223333';
  aws.addModelArn(`${owned}:application-inference-profile/abcdefghijkl`, nova.modelId);
  aws.addModelArn(`${owned}:provisioned-model/abcdefghijkl`, nova.modelId);
  expect((await getModel(`${owned}:application-inference-profile/abcdefghijkl`))?.runs).toEqual({
    ...nova,
    profile: 'in-region',
  });
  expect((await getModel(`${owned}:provisioned-model/abcdefghijkl`))?.runs).toEqual({
    ...nova,
    profile: 'provisioned',
  });
  expect((await getModel(nova.modelId))?.runs).toBeUndefined();
});

test('a model AWS does not know is invalid', async () => {
  for (const modelId of [
    'amazon.nova-nano-v1:0',
    'arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-nano-v1:0',
    '../foundation-models',
  ]) {
    await expect(getModel(modelId)).rejects.toMatchObject({ code: 'model.id_invalid' });
  }
});

test('who may not ask gets no answer, not a wrong one', async () => {
  aws.fault({
    status: 403,
    type: 'AccessDeniedException',
    message: 'User: x is not authorized to perform',
    times: 'always',
  });
  expect(await getModel('amazon.nova-micro-v1:0')).toBeUndefined();
});

test('an unknown id of which one half may not be asked is not called invalid', async () => {
  aws.fault({
    operation: 'GetInferenceProfile',
    status: 403,
    type: 'AccessDeniedException',
    times: 'always',
  });
  expect(await getModel('amazon.nova-nano-v1:0')).toBeUndefined();
});

test('kinds of model that nobody can be asked about', async () => {
  expect(await getModel('abcdefghijkl')).toBeUndefined();
  expect(
    await getModel('arn:aws:bedrock:us-east-1:111122223333:imported-model/abcdefghijkl'),
  ).toBeUndefined();
  expect(aws.journal).toHaveLength(0);
});

test('a credential that AWS refuses is told apart from a missing permission', async () => {
  for (const credential of [
    accessKey('nobody'),
    apiKey('nobody'),
    { ...key, secretAccessKey: accessKey('x').secretAccessKey },
  ]) {
    await expect(getModel('amazon.nova-micro-v1:0', credential)).rejects.toMatchObject({
      code: 'credential.refused_by_aws',
    });
  }
});

test('a passing failure is tried once more, a lasting one is AWS’s error', async () => {
  aws.fault({ status: 503, type: 'ServiceUnavailableException' });
  expect(await getModel('amazon.nova-micro-v1:0')).toMatchObject({ status: 'ACTIVE' });
  expect(aws.journal).toHaveLength(2);
  aws.fault({ status: 503, type: 'ServiceUnavailableException', times: 'always' });
  await expect(getModel('amazon.nova-micro-v1:0')).rejects.toMatchObject({ code: 'upstream.error' });
  expect(aws.journal).toHaveLength(4);
});

test('throttling, silence and dead hosts have their own codes', async () => {
  aws.fault({ status: 429, type: 'ThrottlingException', times: 2 });
  await expect(getModel('amazon.nova-micro-v1:0')).rejects.toMatchObject({ code: 'upstream.throttled' });
  aws.fault({ hangHeaders: true, times: 'always' });
  await expect(getModel('amazon.nova-micro-v1:0')).rejects.toMatchObject({ code: 'upstream.timeout' });
  await using nowhere = new BedrockModels({ ...limits, endpoint: 'http://127.0.0.1:9' });
  const asked = nowhere.getModel({
    resolved: resolved(key, 'k'),
    modelId: 'a.b',
    signal: new AbortController().signal,
  });
  await expect(asked).rejects.toMatchObject({ code: 'upstream.unreachable' });
});

test('no region outside the list', async () => {
  const elsewhere = { ...resolved(key, 'k'), region: 'cn-north-1' };
  const asked = models.getModel({
    resolved: elsewhere,
    modelId: 'a.b',
    signal: new AbortController().signal,
  });
  await expect(asked).rejects.toMatchObject({ code: 'region.not_allowed' });
});
