import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { AssumeRoleCommand, GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import { ConverseCommand, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import {
  ALICE,
  BOB,
  NOVA,
  refusal,
  runtimeClient,
  startWithMerchants,
  stsClient,
  userSays,
} from './clients.ts';
import type { AssumeRoleCommandInput } from '@aws-sdk/client-sts';
import type { StandIn } from '../../aws/stand-in.ts';

const ROLE = 'arn:aws:iam::555555555555:role/merchants/bedrock-access';
let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
  standIn.addRole({
    arn: ROLE,
    externalId: 'ext-1',
    trusts: [ALICE.accountId],
    maxSessionSeconds: 7200,
    deny: ['bedrock:InvokeModelWithResponseStream'],
  });
});
afterAll(() => standIn.close());

const assume = (
  changes: Partial<AssumeRoleCommandInput> = {},
  who: Parameters<typeof stsClient>[1] = ALICE,
) =>
  stsClient(standIn, who).send(
    new AssumeRoleCommand({
      RoleArn: ROLE,
      RoleSessionName: 'test-session',
      ExternalId: 'ext-1',
      ...changes,
    }),
  );

async function session() {
  const { Credentials: issued } = await assume();
  return {
    accessKeyId: issued?.AccessKeyId ?? '',
    secretAccessKey: issued?.SecretAccessKey ?? '',
    sessionToken: issued?.SessionToken ?? '',
  };
}

test('GetCallerIdentity says who signed', async () => {
  const identity = await stsClient(standIn, BOB).send(new GetCallerIdentityCommand({}));
  expect(identity).toMatchObject({
    Account: BOB.accountId,
    Arn: `arn:aws:iam::${BOB.accountId}:user/stand-in`,
  });
});

test('AssumeRole gives keys that pay from the role’s account', async () => {
  const assumed = await assume({ DurationSeconds: 3600, Policy: '{"Version":"2012-10-17","Statement":[]}' });
  expect(assumed.AssumedRoleUser?.Arn).toBe(
    'arn:aws:sts::555555555555:assumed-role/bedrock-access/test-session',
  );
  expect(Math.abs((assumed.Credentials?.Expiration?.getTime() ?? 0) - Date.now() - 3_600_000)).toBeLessThan(
    5000,
  );
  const keys = await session();
  expect((await stsClient(standIn, keys).send(new GetCallerIdentityCommand({}))).Account).toBe(
    '555555555555',
  );
  const answer = await runtimeClient(standIn, 'h2', keys).send(
    new ConverseCommand({ modelId: NOVA, messages: userSays('hi') }),
  );
  expect(answer.output?.message?.content?.[0]?.text).toContain('[555555555555]');
});

test.each([
  ['without the external id', { ExternalId: undefined }],
  ['with another external id', { ExternalId: 'ext-2' }],
  ['of an unknown role', { RoleArn: 'arn:aws:iam::555555555555:role/none' }],
])('AssumeRole %s is denied', async (_name, changes) => {
  expect(await refusal(assume(changes))).toMatchObject({ name: 'AccessDenied', status: 403 });
});

test('AssumeRole is denied to whom the role does not trust', async () => {
  expect(await refusal(assume({}, BOB))).toMatchObject({ name: 'AccessDenied' });
});

test.each([
  ['too short a session', { DurationSeconds: 60 }, 'ValidationError'],
  ['longer than the role allows', { DurationSeconds: 7201 }, 'ValidationError'],
  ['a bad session name', { RoleSessionName: 'no spaces!' }, 'ValidationError'],
  ['a policy that is no JSON', { Policy: '{' }, 'MalformedPolicyDocument'],
])('AssumeRole refuses %s', async (_name, changes, name) => {
  // The SDK names this class of error after the model, with `Exception` behind it.
  expect((await refusal(assume(changes))).name.replace(/Exception$/, '')).toBe(name);
});

test('a chained role lasts an hour at most', async () => {
  const keys = await session();
  standIn.addRole({ arn: 'arn:aws:iam::555555555555:role/second', maxSessionSeconds: 43_200 });
  const chained = { RoleArn: 'arn:aws:iam::555555555555:role/second', ExternalId: undefined };
  expect(await refusal(assume({ ...chained, DurationSeconds: 3601 }, keys))).toMatchObject({ status: 400 });
  await expect(assume(chained, keys)).resolves.toBeDefined();
});

test('a session policy narrows the role to the models it names', async () => {
  const profile = 'us.amazon.nova-micro-v1:0';
  const regions = ['us-east-1', 'us-east-2', 'us-west-2'];
  const models = regions.map(
    (region) => `arn:aws:bedrock:${region}::foundation-model/amazon.nova-micro-v1:0`,
  );
  const whole = [`arn:aws:bedrock:us-east-1:555555555555:inference-profile/${profile}`, ...models];
  const tryWith = async (Resource: string[], modelId: string) => {
    const Statement = [{ Effect: 'Allow', Action: 'bedrock:InvokeModel', Resource }];
    const { Credentials: issued } = await assume({
      Policy: JSON.stringify({ Version: '2012-10-17', Statement }),
    });
    const keys = {
      accessKeyId: issued?.AccessKeyId ?? '',
      secretAccessKey: issued?.SecretAccessKey ?? '',
      sessionToken: issued?.SessionToken ?? '',
    };
    return runtimeClient(standIn, 'h2', keys).send(
      new ConverseCommand({ modelId, messages: userSays('hi') }),
    );
  };
  await expect(tryWith(whole, profile)).resolves.toBeDefined();
  await expect(tryWith(['arn:aws:bedrock:*::foundation-model/amazon.nova-*'], NOVA)).resolves.toBeDefined();
  expect(await refusal(tryWith(whole.slice(0, 2), profile))).toMatchObject({
    name: 'AccessDeniedException',
    status: 403,
  });
  expect(await refusal(tryWith(whole, 'amazon.nova-pro-v1:0'))).toMatchObject({
    name: 'AccessDeniedException',
  });
});

test('what a role denies, its sessions are denied', async () => {
  const keys = await session();
  const stream = runtimeClient(standIn, 'h2', keys).send(
    new ConverseStreamCommand({ modelId: NOVA, messages: userSays('hi') }),
  );
  expect(await refusal(stream)).toMatchObject({ name: 'AccessDeniedException' });
});
