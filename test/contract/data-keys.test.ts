import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { DataKeyStore } from '../../src/credentials/data-key-store.ts';
import { AwsDataKeys } from '../../src/credentials/data-keys-aws.ts';
import { rewrapDataKeys } from '../../src/credentials/data-keys.ts';
import type { RewrapParts } from '../../src/credentials/data-keys.ts';
import { RotationStore } from '../../src/credentials/rotation-store.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import {
  ACTOR,
  KMS_KEY,
  LONG_LIVED,
  MERCHANT_A,
  MERCHANT_B,
  OPERATOR_ACCOUNT,
  SERVICE_KEY,
  input,
  known,
  secretVault,
  setUpVault,
  spellings,
} from './vault-setup.ts';
import type { VaultHouse } from './vault-setup.ts';

const NEXT = { keyId: '7c2f4a52-2222-4222-8333-444455556666', alias: 'alias/next' };
const NOT_ENCRYPTED_ANEW =
  'secretsmanager:UpdateSecret left the version under the older key (it needs a label of AWS, kms:Decrypt there and kms:Encrypt here)';
const ADMIN = { subject: 'cli:test', requestId: 'cli' };

let house: VaultHouse;
let store: DataKeyStore;
let wrapping: AwsDataKeys;
let adminDatabase: Database;
let [oldArn, newArn] = ['', ''];

beforeAll(async () => {
  house = await setUpVault();
  oldArn = `arn:aws:kms:us-east-1:${OPERATOR_ACCOUNT}:key/${KMS_KEY.keyId}`;
  newArn = house.aws.addKmsKey({ ...NEXT, accountId: OPERATOR_ACCOUNT, region: 'us-east-1' }).arn;
  const adminUrl = await house.asAdmin((client) => Promise.resolve(urlOf(client)));
  adminDatabase = new Database({
    url: new Secret(adminUrl),
    connectionsMax: 4,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  store = new DataKeyStore(adminDatabase);
  wrapping = new AwsDataKeys({
    region: 'us-east-1',
    environment: 'test',
    kmsKeyId: NEXT.alias,
    endpoints: { kms: house.aws.url, secretsManager: house.aws.url },
    serviceCredentials: SERVICE_KEY,
  });
});
afterAll(async () => {
  wrapping[Symbol.dispose]();
  await adminDatabase[Symbol.asyncDispose]();
  await house.close();
});
beforeEach(async () => {
  house.aws.forget();
  house.aws.setKmsKeyState(oldArn, 'Enabled');
  await house.asAdmin((client) =>
    client.query(
      'DELETE FROM credential_rotations; DELETE FROM credential_versions; DELETE FROM credentials; ',
    ),
  );
});

function urlOf(client: {
  host: string;
  port: number;
  database?: string | undefined;
  user?: string | undefined;
}) {
  const url = new URL(process.env['TEST_ADMIN_URL'] ?? '');
  url.pathname = `/${client.database ?? ''}`;
  return url.href;
}

async function stored(merchantId: MerchantId): Promise<CredentialId> {
  return (await house.credentials.store(ACTOR, merchantId, input(LONG_LIVED))).id;
}

/** Opens it anew, as a replica that has nothing in memory does. */
async function opens(merchantId: MerchantId, credentialId: CredentialId): Promise<string> {
  const sealed = await house.parts.store.recordOpening(merchantId, ACTOR, credentialId, 1);
  const opened = await house.parts.secrets.open({ merchantId, credentialId, version: 1 }, sealed);
  return opened.kind === 'access-key' ? opened.secretAccessKey.reveal() : '';
}

async function counts(): Promise<Record<string, number>> {
  const found = (await store.status()).filter(({ kind }) => kind === 'data-key');
  return Object.fromEntries(found.map(({ key, count }) => [key === newArn ? 'new' : 'old', count]));
}

const rewrap = (change: Partial<RewrapParts> = {}) =>
  rewrapDataKeys({ store, wrapping, arn: newArn, actor: ADMIN, batch: 2, ...change });

describe('data keys move to another KMS key', () => {
  test('all that are not destroyed, of every merchant; the older KMS key can then be disabled', async () => {
    const [a, b, gone] = await Promise.all([stored(MERCHANT_A), stored(MERCHANT_B), stored(MERCHANT_A)]);
    const more = await stored(MERCHANT_B);
    await house.credentials.delete(ACTOR, MERCHANT_A, gone);
    house.aws.forget();
    const progress: number[] = [];
    const done = await rewrap({ onProgress: ({ rewrapped }) => void progress.push(rewrapped) });
    expect(done).toEqual({ rewrapped: 3, overtaken: 0, failed: {} });
    expect(progress).toEqual([2, 3]);
    expect(await counts()).toEqual({ new: 3 });
    house.aws.setKmsKeyState(oldArn, 'Disabled');
    for (const [merchant, id] of [
      [MERCHANT_A, a],
      [MERCHANT_B, b],
      [MERCHANT_B, more],
    ] as const)
      expect(await opens(merchant, id)).toBe(LONG_LIVED.secretAccessKey.reveal());
    expect(await rewrap()).toEqual({ rewrapped: 0, overtaken: 0, failed: {} });
  });

  test('no data key and no secret leaves AWS on the way', async () => {
    await stored(MERCHANT_A);
    house.aws.forget();
    await rewrap();
    const asked = house.aws.journal.map(({ operation }) => operation);
    expect(await wrapping.wanted()).toBe(newArn);
    expect(asked).toEqual(['UpdateSecret', 'ListSecretVersionIds', 'ReEncrypt']);
    const sent = house.aws.journal
      .map(({ bodyBase64 }) => Buffer.from(bodyBase64, 'base64').toString())
      .join();
    for (const spelling of spellings(LONG_LIVED.secretAccessKey.reveal()))
      expect(sent).not.toContain(spelling);
    const { rows } = await house.asAdmin((client) =>
      client.query<{ body: string }>(
        `SELECT body FROM audit_events WHERE action = 'keys.rewrapped' ORDER BY seq DESC LIMIT 1`,
      ),
    );
    expect(JSON.parse(rows[0]?.body ?? '')).toEqual({ kmsKeyArn: newArn, keys: 1 });
  });

  test('who may not encrypt with the new key moves nothing, although UpdateSecret says nothing of it', async () => {
    const id = await stored(MERCHANT_A);
    house.aws.addAccessKey({ ...known(SERVICE_KEY, OPERATOR_ACCOUNT), deny: ['kms:Encrypt'] });
    const done = await rewrap().finally(() => {
      house.aws.addAccessKey(known(SERVICE_KEY, OPERATOR_ACCOUNT));
    });
    expect(done).toEqual({ rewrapped: 0, overtaken: 0, failed: { [NOT_ENCRYPTED_ANEW]: 1 } });
    expect(await counts()).toEqual({ old: 1 });
    expect(await rewrap()).toMatchObject({ rewrapped: 1 });
    house.aws.setKmsKeyState(oldArn, 'Disabled');
    expect(await opens(MERCHANT_A, id)).toBe(LONG_LIVED.secretAccessKey.reveal());
  });

  test('a version that bears no label stays in the count: Secrets Manager does not encrypt it anew', async () => {
    const credentialId = await stored(MERCHANT_A);
    const place = { merchantId: MERCHANT_A, credentialId, version: 1 };
    const { secretName } = await house.parts.store.recordOpening(MERCHANT_A, ACTOR, credentialId, 1);
    const unlabelled = randomUUID();
    // AWSPENDING goes from the first to the second.
    for (const secretVersionId of [unlabelled, randomUUID()])
      await house.parts.secrets.sealNext(place, LONG_LIVED, {
        secretName,
        secretVersionId,
        kmsKeyArn: oldArn,
      });
    await house.asAdmin((client) =>
      client.query('UPDATE credential_versions SET secret_version_id = $1', [unlabelled]),
    );
    expect(await rewrap()).toMatchObject({ rewrapped: 0, failed: { [NOT_ENCRYPTED_ANEW]: 1 } });
  });

  test('a rotation before the re-wrap stays under the older key, in the database as in Secrets Manager, and moves with it', async () => {
    const credentialId = await stored(MERCHANT_A);
    using configuredAnew = secretVault(house.aws, { kmsKeyId: NEXT.alias });
    const rotations = new RotationStore(house.database, { overlapMs: 60_000, minIntervalMs: 0 });
    const begun = await rotations.begin(
      ACTOR,
      { merchantId: MERCHANT_A, credentialId },
      { mode: 'material', secretVersionId: randomUUID() },
    );
    if (begun.verdict !== 'begun') throw new Error(begun.verdict);
    const { rotation } = begun;
    const sealed = await configuredAnew.sealNext(rotation, LONG_LIVED, rotation);
    expect(sealed.kmsKeyArn).toBe(oldArn);
    await rotations.sealed(rotation, sealed, 'hint');
    expect(await counts()).toEqual({ old: 2 });
    expect(await rewrap()).toEqual({ rewrapped: 2, overtaken: 0, failed: {} });
    house.aws.setKmsKeyState(oldArn, 'Disabled');
    const pending = await rotations.openPending(ACTOR, rotation);
    expect(pending && (await configuredAnew.open(rotation, pending))).toMatchObject({ kind: 'access-key' });
  });

  test('two at once: every key once, and all open', async () => {
    const ids = await Promise.all(Array.from({ length: 7 }, () => stored(MERCHANT_A)));
    const sums = await Promise.all([rewrap(), rewrap({ batch: 3 })]);
    expect(sums[0].rewrapped + sums[1].rewrapped).toBe(7);
    expect(await counts()).toEqual({ new: 7 });
    house.aws.setKmsKeyState(oldArn, 'Disabled');
    for (const id of ids) expect(await opens(MERCHANT_A, id)).toBe(LONG_LIVED.secretAccessKey.reveal());
  });

  test('what is deleted while its key is under way stays deleted', async () => {
    const [kept, gone] = [await stored(MERCHANT_A), await stored(MERCHANT_B)];
    const slow = {
      rewrap: async (...args: Parameters<AwsDataKeys['rewrap']>) => {
        const after = await wrapping.rewrap(...args);
        if (args[0].credentialId === gone) await house.credentials.delete(ACTOR, MERCHANT_B, gone);
        return after;
      },
    };
    await expect(rewrap({ wrapping: slow })).resolves.toEqual({ rewrapped: 1, overtaken: 1, failed: {} });
    const { rows } = await house.asAdmin((client) =>
      client.query<object>(`SELECT state, wrapped_key FROM credential_versions WHERE credential_id = $1`, [
        gone,
      ]),
    );
    expect(rows).toEqual([{ state: 'destroyed', wrapped_key: null }]);
    expect(await opens(MERCHANT_A, kept)).toBe(LONG_LIVED.secretAccessKey.reveal());
  });

  test('it waits for no version that somebody else is changing: that one is taken again', async () => {
    const [, busy] = [await stored(MERCHANT_A), await stored(MERCHANT_B)];
    await house.asAdmin(async (client) => {
      await client.query('BEGIN');
      await client.query('SELECT 1 FROM credential_versions WHERE credential_id = $1 FOR UPDATE', [busy]);
      await expect(rewrap()).resolves.toEqual({ rewrapped: 1, overtaken: 1, failed: {} });
      await client.query('COMMIT');
    });
    expect(await counts()).toEqual({ old: 1, new: 1 });
    expect(await rewrap()).toMatchObject({ rewrapped: 1 });
  });

  test('stopped in the middle it goes on where it was; one that fails keeps no other waiting, and is named', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => stored(MERCHANT_A)));
    const stop = () => {
      throw new Error('stopped');
    };
    await expect(rewrap({ onProgress: stop })).rejects.toThrow('stopped');
    expect(await counts()).toEqual({ old: 3, new: 2 });
    house.aws.fault({ operation: 'ReEncrypt', status: 400, type: 'DisabledException', times: 1 });
    expect(await rewrap({ parallel: 1 })).toEqual({
      rewrapped: 2,
      overtaken: 0,
      failed: { 'kms:ReEncrypt DisabledException': 1 },
    });
    expect(await rewrap()).toMatchObject({ rewrapped: 1 });
    for (const id of ids) expect(await opens(MERCHANT_A, id)).toBe(LONG_LIVED.secretAccessKey.reveal());
  });

  test('when nothing works it ends after one batch', async () => {
    await Promise.all(Array.from({ length: 5 }, () => stored(MERCHANT_A)));
    house.aws.setKmsKeyState(oldArn, 'Disabled');
    expect(await rewrap()).toEqual({
      rewrapped: 0,
      overtaken: 0,
      failed: { 'secretsmanager:UpdateSecret DecryptionFailure': 2 },
    });
    expect(await counts()).toEqual({ old: 5 });
  });

  test('credentials are opened all the while', async () => {
    const ids = await Promise.all(Array.from({ length: 12 }, () => stored(MERCHANT_A)));
    const state = { running: true };
    const moving = rewrap({ parallel: 1 }).finally(() => (state.running = false));
    let opened = 0;
    do
      for (const id of ids.slice(0, 4)) {
        expect(await opens(MERCHANT_A, id)).toBe(LONG_LIVED.secretAccessKey.reveal());
        opened += 1;
      }
    while (state.running);
    expect(await moving).toMatchObject({ rewrapped: 12 });
    expect(opened).toBeGreaterThan(0);
  });

  test('what another deployment wrapped is not moved: the context is part of it', async () => {
    using other = secretVault(house.aws, { environment: 'other' });
    const id = await stored(MERCHANT_A);
    const place = { merchantId: MERCHANT_A, credentialId: id, version: 1 };
    const { wrappedKey } = await other.seal(place, LONG_LIVED, () => Promise.resolve());
    await house.asAdmin((client) =>
      client.query('UPDATE credential_versions SET wrapped_key = $1', [wrappedKey]),
    );
    expect(await rewrap()).toMatchObject({ failed: { 'kms:ReEncrypt InvalidCiphertextException': 1 } });
  });
});
