import { GenerateDataKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  GetSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { seal } from '../../src/credentials/envelope.ts';
import type { EnvelopeContext } from '../../src/credentials/envelope.ts';
import { AWS } from '../support/aws-keys.ts';
import { onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';

/** Both halves of a sealed credential, as somebody who can write to both stores sees them. */
interface Halves {
  credentialId: string;
  wrappedKey: Buffer;
  kmsKeyArn: string;
  secretName: string;
  secretVersionId: string;
  envelope: Buffer;
}

let service: TestService;
let merchant: MerchantPerson;
let secrets: SecretsManagerClient;
let kms: KMSClient;
let admin: pg.Client;
let mine: Halves;
let sibling: Halves;
let foreign: Halves;

beforeAll(async () => {
  // Each use opens anew, with the copy of the use before at hand for an outage: which this is not.
  service = await startTestService({ OPENED_CREDENTIALS_TTL_MS: '1' });
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  const { accessKeyId, secretAccessKey } = AWS.service;
  const options = {
    endpoint: service.standIn.url,
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
  };
  secrets = new SecretsManagerClient(options);
  kms = new KMSClient(options);
  merchant = await onboard(service, 'altered');
  const other = await onboard(service, 'neighbour', { awsKey: AWS.merchantB });
  const stored = await merchant.post('/credentials', {
    kind: 'access-key',
    name: 'sibling',
    region: 'us-east-1',
    awsAccessKeyId: AWS.merchantADirect.accessKeyId,
    awsSecretAccessKey: AWS.merchantADirect.secretAccessKey,
  });
  mine = await halvesOf(merchant.credentialId);
  sibling = await halvesOf(stored.json['id'] as string);
  foreign = await halvesOf(other.credentialId);
});
afterAll(async () => {
  secrets.destroy();
  kms.destroy();
  await admin.end();
  await service[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await putBack(mine);
  expect(await chat()).toMatchObject({ status: 200 });
  service.standIn.forget();
});

/** Everything that somebody could do with write access to Secrets Manager, to Postgres, or to both. */
const ALTERATIONS: [string, () => Promise<void>][] = [
  ...[3, 4, 36, 68, 83, 84, -17, -1].map((at): [string, () => Promise<void>] => [
    `a bit of byte ${String(at)} of the ciphertext`,
    () => putCiphertext(flipped(mine.envelope, at)),
  ]),
  ...[1, 64].map((cut): [string, () => Promise<void>] => [
    `a ciphertext without its last ${String(cut)} bytes`,
    () => putCiphertext(mine.envelope.subarray(0, -cut)),
  ]),
  ...[1, 64].map((more): [string, () => Promise<void>] => [
    `a ciphertext with ${String(more)} bytes more`,
    () => putCiphertext(Buffer.concat([mine.envelope, Buffer.alloc(more)])),
  ]),
  ['the ciphertext of a sibling', () => putCiphertext(sibling.envelope)],
  ['the ciphertext of another merchant', () => putCiphertext(foreign.envelope)],
  ['something that is no envelope', () => putCiphertext(Buffer.from('{"kind":"access-key"}'))],
  ['a row that points to the secret of a sibling', () => putRow({ ...sibling, wrappedKey: mine.wrappedKey })],
  ['the wrapped key of a sibling', () => putRow({ ...mine, wrappedKey: sibling.wrappedKey })],
  ['the wrapped key of another merchant', () => putRow({ ...mine, wrappedKey: foreign.wrappedKey })],
  ['both halves of a sibling', () => putRow(sibling)],
  ['both halves of another merchant', () => putRow(foreign)],
  ['a bit of the wrapped key', () => putRow({ ...mine, wrappedKey: flipped(mine.wrappedKey, -1) })],
  ['half a wrapped key', () => putRow({ ...mine, wrappedKey: mine.wrappedKey.subarray(0, 60) })],
  ['another KMS key', () => putRow({ ...mine, kmsKeyArn: `${mine.kmsKeyArn.slice(0, -1)}0` })],
  ['both halves sealed for another purpose', () => putSealed({ purpose: 'other' as 'aws-credential' })],
  ['both halves sealed for another deployment', () => putSealed({ env: 'staging' })],
  ['both halves of an older version', () => putSealed({ version: '0' })],
  ['a secret that is gone', () => remove(mine.secretName)],
];

describe('a stored credential that was altered signs nothing', () => {
  test.each(ALTERATIONS)('%s', async (_name, alter) => {
    await alter();
    const before = await ledgerRows();
    for (const answer of [await chat(), await wire()]) {
      expect(answer.status).toBe(503);
      expect(answer.text).toContain('credential.unreadable');
      // It does not heal by waiting.
      expect(answer.headers.get('retry-after')).toBeNull();
      expect(answer.text).not.toContain(AWS.merchantA.secretAccessKey);
    }
    const tested = await merchant.post(`/credentials/${merchant.credentialId}/test`, {});
    expect(tested.json['code']).toBe('credential.unreadable');
    expect(runtimeCalls(service)).toEqual([]);
    expect(service.standIn.journal.filter(({ service }) => service === 'sts')).toEqual([]);
    expect(await ledgerRows()).toBe(before);
    expect(await actionsSince('credential.used_stale')).toBe(0);
  });

  test('a version that was put back to an earlier one opens nothing that is not its own', async () => {
    // The row says version 2, both halves are those of version 1: what an insider does to bring back a key that was rotated away.
    await asAdmin(
      `INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
       SELECT merchant_id, credential_id, 2, 'pending', wrapped_key, kms_key_arn, secret_name, secret_version_id
       FROM credential_versions WHERE credential_id = $1 AND version = 1`,
    );
    await asAdmin(
      `UPDATE credential_versions SET state = 'retired' WHERE credential_id = $1 AND version = 1`,
    );
    await asAdmin(
      `UPDATE credential_versions SET state = 'current' WHERE credential_id = $1 AND version = 2`,
    );
    await asAdmin('UPDATE credentials SET current_version = 2 WHERE id = $1');
    try {
      const answer = await chat();
      expect(answer).toMatchObject({ status: 503, json: { code: 'credential.unreadable' } });
      expect(runtimeCalls(service)).toEqual([]);
    } finally {
      await asAdmin('UPDATE credentials SET current_version = 1 WHERE id = $1');
      await asAdmin('DELETE FROM credential_versions WHERE credential_id = $1 AND version = 2');
      await asAdmin(
        `UPDATE credential_versions SET state = 'current' WHERE credential_id = $1 AND version = 1`,
      );
      // What is remembered of the version is looked at anew when a call is refused by it.
      await chat();
    }
  });
});

function chat() {
  return merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId: merchant.credentialId });
}

function wire() {
  const body = { messages: [{ role: 'user', content: [{ text: 'x' }] }] };
  return merchant.post(`/model/${MODEL}/converse-stream`, body, {
    'x-bedrock-credential-id': merchant.credentialId,
  });
}

function flipped(bytes: Buffer, at: number): Buffer {
  const altered = Buffer.from(bytes);
  const index = at < 0 ? altered.length + at : at;
  altered.writeUInt8(altered.readUInt8(index) ^ 1, index);
  return altered;
}

async function asAdmin<Row extends object>(sql: string, values: unknown[] = [merchant.credentialId]) {
  return (await admin.query<Row>(sql, values)).rows;
}

async function halvesOf(credentialId: string): Promise<Halves> {
  const [row] = await asAdmin<{
    wrapped_key: Buffer;
    kms_key_arn: string;
    secret_name: string;
    secret_version_id: string;
  }>('SELECT * FROM credential_versions WHERE credential_id = $1', [credentialId]);
  if (row === undefined) throw new Error('no such credential');
  const found = await secrets.send(
    new GetSecretValueCommand({ SecretId: row.secret_name, VersionId: row.secret_version_id }),
  );
  return {
    credentialId,
    wrappedKey: row.wrapped_key,
    kmsKeyArn: row.kms_key_arn,
    secretName: row.secret_name,
    secretVersionId: row.secret_version_id,
    envelope: Buffer.from(found.SecretBinary ?? []),
  };
}

async function putRow({ wrappedKey, kmsKeyArn, secretName, secretVersionId }: Halves): Promise<void> {
  await asAdmin(
    `UPDATE credential_versions SET wrapped_key = $2, kms_key_arn = $3, secret_name = $4, secret_version_id = $5 WHERE credential_id = $1`,
    [merchant.credentialId, wrappedKey, kmsKeyArn, secretName, secretVersionId],
  );
}

async function remove(secretName: string): Promise<void> {
  await secrets
    .send(new DeleteSecretCommand({ SecretId: secretName, ForceDeleteWithoutRecovery: true }))
    .catch(() => undefined);
}

/** Under the name and version that the row expects. */
async function putCiphertext(envelope: Buffer): Promise<void> {
  await remove(mine.secretName);
  await secrets.send(
    new CreateSecretCommand({
      Name: mine.secretName,
      ClientRequestToken: mine.secretVersionId,
      SecretBinary: envelope,
    }),
  );
}

/** A well-made credential of the same merchant and id, but for one part of what it is bound to. */
async function putSealed(change: Partial<EnvelopeContext>): Promise<void> {
  const context: EnvelopeContext = {
    app: 'mbk',
    env: 'main',
    merchant_id: merchant.merchantId,
    credential_id: merchant.credentialId,
    version: '1',
    purpose: 'aws-credential',
    ...change,
  };
  const key = await kms.send(
    new GenerateDataKeyCommand({
      KeyId: mine.kmsKeyArn,
      KeySpec: 'AES_256',
      EncryptionContext: { ...context },
    }),
  );
  const { accessKeyId, secretAccessKey } = AWS.merchantB;
  const material = JSON.stringify({ kind: 'access-key', accessKeyId, secretAccessKey });
  await putCiphertext(seal(Buffer.from(material), Buffer.from(key.Plaintext ?? []), context));
  await putRow({ ...mine, wrappedKey: Buffer.from(key.CiphertextBlob ?? []) });
}

async function putBack(halves: Halves): Promise<void> {
  await putCiphertext(halves.envelope);
  await putRow(halves);
}

async function ledgerRows(): Promise<number> {
  const [row] = await asAdmin<{ count: number }>(
    'SELECT count(*)::int AS count FROM calls WHERE credential_id = $1',
  );
  return row?.count ?? -1;
}

async function actionsSince(action: string): Promise<number> {
  const [row] = await asAdmin<{ count: number }>(
    'SELECT count(*)::int AS count FROM audit_events WHERE action = $1',
    [action],
  );
  return row?.count ?? -1;
}
