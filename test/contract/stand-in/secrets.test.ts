import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretVersionIdsCommand,
  ListSecretsCommand,
  PutSecretValueCommand,
  RestoreSecretCommand,
  TagResourceCommand,
  UpdateSecretCommand,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { ALICE, BOB, REGION, refusal, secretsClient, startWithMerchants } from './clients.ts';
import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { StandIn } from '../../aws/stand-in.ts';

let standIn: StandIn;
let secrets: SecretsManagerClient;
beforeAll(async () => {
  standIn = await startWithMerchants();
  secrets = secretsClient(standIn);
});
afterAll(() => standIn.close());

const token = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const read = (SecretId: string, which: { VersionStage?: string; VersionId?: string } = {}) =>
  secrets.send(new GetSecretValueCommand({ SecretId, ...which }));

test('versions and their labels', async () => {
  const name = 'labels/one';
  const made = await secrets.send(
    new CreateSecretCommand({ Name: name, SecretString: 'v1', ClientRequestToken: token(1) }),
  );
  expect(made.ARN).toMatch(/^arn:aws:secretsmanager:us-east-1:111111111111:secret:labels\/one-[0-9a-f]{6}$/);
  expect(made.VersionId).toBe(token(1));

  await secrets.send(
    new PutSecretValueCommand({
      SecretId: name,
      SecretString: 'v2',
      ClientRequestToken: token(2),
      VersionStages: ['AWSPENDING'],
    }),
  );
  expect((await read(name)).SecretString).toBe('v1');
  expect((await read(made.ARN ?? '', { VersionStage: 'AWSPENDING' })).SecretString).toBe('v2');

  const move = { SecretId: name, VersionStage: 'AWSCURRENT', MoveToVersionId: token(2) };
  expect(await refusal(secrets.send(new UpdateSecretVersionStageCommand(move)))).toMatchObject({
    name: 'InvalidParameterException',
  });
  await secrets.send(new UpdateSecretVersionStageCommand({ ...move, RemoveFromVersionId: token(1) }));
  expect((await read(name)).SecretString).toBe('v2');
  expect((await read(name, { VersionStage: 'AWSPREVIOUS' })).SecretString).toBe('v1');

  await secrets.send(
    new PutSecretValueCommand({ SecretId: name, SecretString: 'v3', ClientRequestToken: token(3) }),
  );
  const { VersionIdsToStages } = await secrets.send(new DescribeSecretCommand({ SecretId: name }));
  expect(VersionIdsToStages).toEqual({
    [token(2)]: ['AWSPENDING', 'AWSPREVIOUS'],
    [token(3)]: ['AWSCURRENT'],
  });
  const all = await secrets.send(
    new ListSecretVersionIdsCommand({ SecretId: name, IncludeDeprecated: true }),
  );
  expect(all.Versions?.map((version) => version.VersionId)).toEqual([token(1), token(2), token(3)]);
  expect((await read(name, { VersionId: token(1) })).SecretString).toBe('v1');
  expect(await refusal(read(name, { VersionId: token(9) }))).toMatchObject({
    name: 'ResourceNotFoundException',
  });
  expect(await refusal(read(name, { VersionId: token(1), VersionStage: 'AWSCURRENT' }))).toMatchObject({
    name: 'InvalidRequestException',
  });
});

test('a retry is the same request; the same token with other content is not', async () => {
  const create = (SecretString: string, n: number) =>
    secrets.send(new CreateSecretCommand({ Name: 'retry', SecretString, ClientRequestToken: token(n) }));
  const put = (SecretString: string) =>
    secrets.send(
      new PutSecretValueCommand({ SecretId: 'retry', SecretString, ClientRequestToken: token(11) }),
    );
  const first = await create('a', 10);
  expect((await create('a', 10)).ARN).toBe(first.ARN);
  expect(await refusal(create('b', 10))).toMatchObject({ name: 'ResourceExistsException' });
  expect(await refusal(create('a', 12))).toMatchObject({ name: 'ResourceExistsException' });
  await put('x');
  await put('x');
  expect(await refusal(put('y'))).toMatchObject({ name: 'ResourceExistsException', status: 400 });
});

test('binary values come back as they went', async () => {
  await secrets.send(new CreateSecretCommand({ Name: 'binary', SecretBinary: Buffer.from([0, 255, 7]) }));
  expect([...((await read('binary')).SecretBinary ?? [])]).toEqual([0, 255, 7]);
});

describe('deletion', () => {
  test('waits, blocks reading and the name, and can be taken back', async () => {
    await secrets.send(new CreateSecretCommand({ Name: 'gone', SecretString: 'x' }));
    const { DeletionDate } = await secrets.send(
      new DeleteSecretCommand({ SecretId: 'gone', RecoveryWindowInDays: 7 }),
    );
    expect((DeletionDate?.getTime() ?? 0) - Date.now()).toBeGreaterThan(6.9 * 86_400_000);
    expect(await refusal(read('gone'))).toMatchObject({ name: 'InvalidRequestException' });
    expect(
      await refusal(secrets.send(new CreateSecretCommand({ Name: 'gone', SecretString: 'x' }))),
    ).toMatchObject({ name: 'InvalidRequestException' });
    expect((await secrets.send(new DescribeSecretCommand({ SecretId: 'gone' }))).DeletedDate).toBeDefined();
    await secrets.send(new RestoreSecretCommand({ SecretId: 'gone' }));
    expect((await read('gone')).SecretString).toBe('x');
  });

  test('at once, when forced', async () => {
    const made = await secrets.send(new CreateSecretCommand({ Name: 'forced', SecretString: 'x' }));
    await secrets.send(new DeleteSecretCommand({ SecretId: 'forced', ForceDeleteWithoutRecovery: true }));
    expect(await refusal(read('forced'))).toMatchObject({ name: 'ResourceNotFoundException' });
    const again = await secrets.send(new CreateSecretCommand({ Name: 'forced', SecretString: 'y' }));
    expect(again.ARN).not.toBe(made.ARN);
    const both = { SecretId: 'forced', ForceDeleteWithoutRecovery: true, RecoveryWindowInDays: 7 };
    expect(await refusal(secrets.send(new DeleteSecretCommand(both)))).toMatchObject({
      name: 'InvalidParameterException',
    });
  });
});

test('tags and listing', async () => {
  await secrets.send(
    new CreateSecretCommand({
      Name: 'tagged/1',
      SecretString: 'x',
      Tags: [{ Key: 'merchant', Value: 'm-1' }],
    }),
  );
  await secrets.send(new CreateSecretCommand({ Name: 'tagged/2', SecretString: 'x' }));
  await secrets.send(
    new TagResourceCommand({ SecretId: 'tagged/2', Tags: [{ Key: 'merchant', Value: 'm-2' }] }),
  );
  const list = async (Key: 'name' | 'tag-value', value: string, MaxResults = 10) =>
    secrets.send(new ListSecretsCommand({ Filters: [{ Key, Values: [value] }], MaxResults }));
  expect((await list('tag-value', 'm-2')).SecretList?.map((secret) => secret.Name)).toEqual(['tagged/2']);
  const page = await list('name', 'tagged/', 1);
  expect(page.SecretList).toHaveLength(1);
  expect(page.NextToken).toBeDefined();
});

test('another account sees nothing, and may not open an ARN', async () => {
  const { ARN = '' } = await secrets.send(new CreateSecretCommand({ Name: 'mine', SecretString: 'x' }));
  const bob = secretsClient(standIn, BOB);
  expect(await refusal(bob.send(new GetSecretValueCommand({ SecretId: 'mine' })))).toMatchObject({
    name: 'ResourceNotFoundException',
  });
  expect(await refusal(bob.send(new GetSecretValueCommand({ SecretId: ARN })))).toMatchObject({
    name: 'AccessDeniedException',
    status: 400,
  });
});

test('a secret under a KMS key needs that key', async () => {
  const keyId = '22222222-aaaa-4bbb-8ccc-000000000001';
  const create = () =>
    secrets.send(new CreateSecretCommand({ Name: 'under-key', SecretString: 'x', KmsKeyId: keyId }));
  expect(await refusal(create())).toMatchObject({ name: 'AccessDeniedException' });
  standIn.addKmsKey({ keyId, accountId: ALICE.accountId, region: REGION });
  await create();
  standIn.setKmsKeyState(keyId, 'Disabled');
  expect(await refusal(read('under-key'))).toMatchObject({ name: 'DecryptionFailure' });
});

test('another KMS key: labelled versions are encrypted under both, and only for who may encrypt with the new one', async () => {
  const [older, newer] = ['22222222-aaaa-4bbb-8ccc-000000000002', '22222222-aaaa-4bbb-8ccc-000000000003'];
  for (const keyId of [older, newer])
    standIn.addKmsKey({ keyId, accountId: ALICE.accountId, region: REGION });
  const name = 'moved';
  const put = (n: number) =>
    secrets.send(
      new PutSecretValueCommand({ SecretId: name, SecretString: 'x', ClientRequestToken: token(n) }),
    );
  await secrets.send(
    new CreateSecretCommand({
      Name: name,
      SecretString: 'x',
      ClientRequestToken: token(21),
      KmsKeyId: older,
    }),
  );
  for (const n of [22, 23]) await put(n);
  const move = (client = secrets) =>
    client.send(new UpdateSecretCommand({ SecretId: name, KmsKeyId: newer }));
  const keys = async () =>
    Object.fromEntries(
      (
        await secrets.send(new ListSecretVersionIdsCommand({ SecretId: name, IncludeDeprecated: true }))
      ).Versions?.map(({ VersionId = '', KmsKeyIds }) => [VersionId, KmsKeyIds]) ?? [],
    );
  standIn.addAccessKey({ ...ALICE, accessKeyId: 'AKIANOENCRYPT0000000', deny: ['kms:Encrypt'] });
  await move(secretsClient(standIn, { ...ALICE, accessKeyId: 'AKIANOENCRYPT0000000' }));
  expect(await keys()).toEqual({ [token(21)]: [older], [token(22)]: [older], [token(23)]: [older] });
  await move();
  const both = [older, newer];
  expect(await keys()).toEqual({ [token(21)]: [older], [token(22)]: both, [token(23)]: both });
  standIn.setKmsKeyState(older, 'Disabled');
  expect((await read(name)).SecretString).toBe('x');
  expect(await refusal(read(name, { VersionId: token(21) }))).toMatchObject({ name: 'DecryptionFailure' });
});
