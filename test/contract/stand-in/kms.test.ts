import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  DecryptCommand,
  DescribeKeyCommand,
  EncryptCommand,
  GenerateDataKeyCommand,
  GenerateDataKeyWithoutPlaintextCommand,
  ReEncryptCommand,
} from '@aws-sdk/client-kms';
import { ALICE, BOB, REGION, kmsClient, refusal, startWithMerchants } from './clients.ts';
import type { KMSClient } from '@aws-sdk/client-kms';
import type { StandIn } from '../../aws/stand-in.ts';

const KEY = '11111111-aaaa-4bbb-8ccc-000000000001';
const OTHER_KEY = '11111111-aaaa-4bbb-8ccc-000000000002';
const CONTEXT = { merchant: 'm-1', credential: 'c-1' };

let standIn: StandIn;
let kms: KMSClient;
let arn: string;
beforeAll(async () => {
  standIn = await startWithMerchants();
  ({ arn } = standIn.addKmsKey({
    keyId: KEY,
    alias: 'alias/vault',
    accountId: ALICE.accountId,
    region: REGION,
  }));
  standIn.addKmsKey({ keyId: OTHER_KEY, accountId: ALICE.accountId, region: REGION });
  kms = kmsClient(standIn);
});
afterAll(() => standIn.close());

test('a data key opens again under the same context, in whatever order', async () => {
  const made = await kms.send(
    new GenerateDataKeyCommand({ KeyId: 'alias/vault', KeySpec: 'AES_256', EncryptionContext: CONTEXT }),
  );
  expect(made).toMatchObject({ KeyId: arn });
  expect(made.Plaintext).toHaveLength(32);
  const turned = { credential: 'c-1', merchant: 'm-1' };
  const opened = await kms.send(
    new DecryptCommand({ CiphertextBlob: made.CiphertextBlob, EncryptionContext: turned, KeyId: arn }),
  );
  expect(opened).toMatchObject({ KeyId: arn, EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' });
  expect(Buffer.from(opened.Plaintext ?? [])).toEqual(Buffer.from(made.Plaintext ?? []));
});

test('a data key without plaintext, of so many bytes', async () => {
  const made = await kms.send(new GenerateDataKeyWithoutPlaintextCommand({ KeyId: KEY, NumberOfBytes: 48 }));
  expect(made).not.toHaveProperty('Plaintext');
  expect(
    (await kms.send(new DecryptCommand({ CiphertextBlob: made.CiphertextBlob }))).Plaintext,
  ).toHaveLength(48);
});

describe('a ciphertext', () => {
  let blob: Uint8Array;
  beforeAll(async () => {
    const sealed = await kms.send(
      new EncryptCommand({ KeyId: arn, Plaintext: Buffer.from('secret'), EncryptionContext: CONTEXT }),
    );
    blob = sealed.CiphertextBlob ?? new Uint8Array();
  });
  const open = (changes: object, client = kms) =>
    client.send(new DecryptCommand({ CiphertextBlob: blob, EncryptionContext: CONTEXT, ...changes }));

  test('holds no plaintext', () => {
    expect(Buffer.from(blob).includes('secret')).toBe(false);
  });

  test.each([
    ['another context', { EncryptionContext: { merchant: 'm-2', credential: 'c-1' } }],
    ['no context', { EncryptionContext: undefined }],
  ])('does not open under %s', async (_name, changes) => {
    expect(await refusal(open(changes))).toMatchObject({ name: 'InvalidCiphertextException', status: 400 });
  });

  test('does not open when a byte has changed, or when it is none', async () => {
    const changed = Buffer.from(blob);
    changed.writeUInt8(changed.readUInt8(changed.length - 1) ^ 1, changed.length - 1);
    expect(await refusal(open({ CiphertextBlob: changed }))).toMatchObject({
      name: 'InvalidCiphertextException',
    });
    expect(await refusal(open({ CiphertextBlob: Buffer.from('nonsense') }))).toMatchObject({
      name: 'InvalidCiphertextException',
    });
  });

  test('does not open under another key or in another account', async () => {
    expect(await refusal(open({ KeyId: OTHER_KEY }))).toMatchObject({ name: 'IncorrectKeyException' });
    expect(await refusal(open({}, kmsClient(standIn, BOB)))).toMatchObject({
      name: 'AccessDeniedException',
      status: 400,
    });
  });

  test('moves to another key and context', async () => {
    const moved = await kms.send(
      new ReEncryptCommand({
        CiphertextBlob: blob,
        SourceEncryptionContext: CONTEXT,
        DestinationKeyId: OTHER_KEY,
        DestinationEncryptionContext: { merchant: 'm-9' },
      }),
    );
    expect(moved).toMatchObject({ SourceKeyId: arn });
    const opened = await open({
      CiphertextBlob: moved.CiphertextBlob,
      EncryptionContext: { merchant: 'm-9' },
    });
    expect(Buffer.from(opened.Plaintext ?? []).toString()).toBe('secret');
  });

  test('follows the state of its key', async () => {
    standIn.setKmsKeyState(arn, 'Disabled');
    expect(await refusal(open({}))).toMatchObject({ name: 'DisabledException' });
    standIn.setKmsKeyState(KEY, 'PendingDeletion');
    expect(await refusal(open({}))).toMatchObject({ name: 'KMSInvalidStateException' });
    expect((await kms.send(new DescribeKeyCommand({ KeyId: KEY }))).KeyMetadata).toMatchObject({
      KeyState: 'PendingDeletion',
      Enabled: false,
      Arn: arn,
    });
    standIn.setKmsKeyState(KEY, 'Enabled');
    await expect(open({})).resolves.toBeDefined();
  });
});

test('what does not exist is not found', async () => {
  const generate = (KeyId: string) =>
    refusal(kms.send(new GenerateDataKeyCommand({ KeyId, KeySpec: 'AES_256' })));
  expect(await generate('alias/none')).toMatchObject({ name: 'NotFoundException', status: 400 });
  expect(await generate('11111111-aaaa-4bbb-8ccc-00000000000f')).toMatchObject({ name: 'NotFoundException' });
  expect(await refusal(kms.send(new GenerateDataKeyCommand({ KeyId: KEY })))).toMatchObject({
    name: 'ValidationException',
  });
});
