import {
  GetSecretValueCommand,
  RestoreSecretCommand,
  SecretsManagerClient,
  CreateSecretCommand,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { CredentialResolver } from '../../src/credentials/resolve.ts';
import type { ResolverParts } from '../../src/credentials/resolve.ts';
import type { StoredMaterial } from '../../src/domain/credential.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { newCredentialId } from '../../src/domain/ids.ts';
import { Vault } from '../../src/credentials/vault.ts';
import type { FaultRule } from '../aws/faults.ts';
import {
  ACTOR,
  API_KEY,
  A_ACCOUNT,
  CANARIES,
  KMS_KEY,
  LONG_LIVED,
  MERCHANT_A,
  MERCHANT_B,
  SERVICE_KEY,
  TEMPORARY,
  codeOf,
  failure,
  input,
  known,
  setUpVault,
  spellings,
  unannounced,
  unrecorded,
} from './vault-setup.ts';
import type { VaultHouse } from './vault-setup.ts';
import { until } from '../support/until.ts';

let house: VaultHouse;

beforeAll(async () => {
  house = await setUpVault();
});
afterAll(() => house.close());
beforeEach(() => {
  house.aws.forget();
  house.aws.setKmsKeyState(KMS_KEY.keyId, 'Enabled');
  house.aws.addAccessKey(known(LONG_LIVED, A_ACCOUNT));
  house.leftovers.length = 0;
});

describe('storing', () => {
  test('pins what AWS says and opens to the same keys', async () => {
    for (const material of [LONG_LIVED, TEMPORARY, API_KEY]) {
      const stored = await house.credentials.store(ACTOR, MERCHANT_A, input(material));
      const isAccessKey = material.kind === 'access-key';
      expect(stored).toMatchObject({
        kind: material.kind,
        region: 'us-east-1',
        version: 1,
        isDefault: false,
        accountId: isAccessKey ? A_ACCOUNT : undefined,
        principalArn: isAccessKey ? `arn:aws:iam::${A_ACCOUNT}:user/stand-in` : undefined,
      });
      expect(plain(await openFresh(stored.id))).toEqual(plain(material));
    }
  });

  test('leaves the secret nowhere: database, Secrets Manager, answers', async () => {
    const answers = [];
    for (const material of [LONG_LIVED, TEMPORARY, API_KEY]) {
      const stored = await house.credentials.store(ACTOR, MERCHANT_A, input(material));
      await openFresh(stored.id);
      answers.push(stored, await house.credentials.get(MERCHANT_A, stored.id));
    }
    answers.push(await house.credentials.list(MERCHANT_A));
    const sinks = {
      answers: JSON.stringify(answers),
      database: await dump(),
      sentToVault: house.aws.journal
        .filter(({ service }) => service === 'secretsmanager' || service === 'kms')
        .map((entry) => Buffer.from(entry.bodyBase64, 'base64').toString('latin1'))
        .join('\n'),
    };
    expect(sinks.database).toContain('credential.opened');
    expect(sinks.sentToVault).toContain('SecretBinary');
    for (const [name, text] of Object.entries(sinks))
      for (const canary of CANARIES)
        for (const spelling of spellings(canary))
          expect([name, text.includes(spelling)]).toEqual([name, false]);
  });

  test('names the secret at AWS by nothing a user wrote, and tags it', async () => {
    const given = { ...input(), name: 'Robert"); DROP TABLE secrets' };
    const stored = await house.credentials.store(ACTOR, MERCHANT_A, given);
    const sent = bodyOf('CreateSecret');
    expect(sent['Name']).toMatch(new RegExp(`^mbk/test/[0-9a-f-]{36}/${stored.id}$`));
    expect(sent['Tags']).toEqual([
      { Key: 'merchant_id', Value: MERCHANT_A },
      { Key: 'credential_id', Value: stored.id },
    ]);
    expect(sent['KmsKeyId']).toBe(KMS_KEY.alias);
    expect(sent['ClientRequestToken']).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('what AWS refuses is not stored and costs no vault call', async () => {
    house.aws.addAccessKey({ ...known(LONG_LIVED, A_ACCOUNT), state: 'deactivated' });
    const before = await house.credentials.list(MERCHANT_A);
    expect(await codeOf(house.credentials.store(ACTOR, MERCHANT_A, input()))).toBe(
      'credential.refused_by_aws',
    );
    expect(await house.credentials.list(MERCHANT_A)).toEqual(before);
    expect(vaultCalls()).toEqual([]);
  });

  test('with makeDefault makes it the default, recorded', async () => {
    const stored = await house.credentials.store(ACTOR, MERCHANT_B, input(LONG_LIVED, true));
    expect(stored.isDefault).toBe(true);
    const next = await house.credentials.store(ACTOR, MERCHANT_B, input());
    expect(await house.credentials.makeDefault(ACTOR, MERCHANT_B, next.id)).toMatchObject({
      isDefault: true,
    });
    expect(await house.credentials.get(MERCHANT_B, stored.id)).toMatchObject({ isDefault: false });
    expect(await audit(MERCHANT_B, stored.id)).toEqual([
      'credential.created allowed',
      'credential.made_default allowed',
    ]);
  });

  test('a transaction that fails leaves neither row nor ciphertext', async () => {
    const prepared = await house.credentials.prepare(MERCHANT_A, input(), unrecorded);
    const { Name } = bodyOf('CreateSecret');
    const cause = new Error('the rest of onboarding failed');
    await house.database
      .asTenant(MERCHANT_A, async (tx) => {
        await prepared.commit(tx, ACTOR);
        throw new TypeError(cause.message);
      })
      .catch((error: unknown) => prepared.abandon(error));
    expect(await codeOf(house.credentials.get(MERCHANT_A, prepared.id))).toBe('credential.not_found');
    await expect(getSecret(String(Name))).rejects.toMatchObject({ name: 'ResourceNotFoundException' });
    expect(bodyOf('DeleteSecret')).toMatchObject({ ForceDeleteWithoutRecovery: true });
    expect(await audit(MERCHANT_A, prepared.id)).toEqual([]);
  });

  test('when nobody knows whether the transaction was committed, the ciphertext stays and is reported', async () => {
    const prepared = await house.credentials.prepare(MERCHANT_A, input(), unrecorded);
    const { Name } = bodyOf('CreateSecret');
    await prepared.abandon(new ServiceError('ledger.unavailable', 'connection lost at COMMIT'));
    expect(house.leftovers).toEqual([Name]);
    await expect(getSecret(String(Name))).resolves.toBeDefined();
  });

  test.each<[string, FaultRule]>([
    ['KMS', { service: 'kms', operation: 'GenerateDataKey', status: 500, times: 'always' }],
    [
      'Secrets Manager',
      { service: 'secretsmanager', operation: 'CreateSecret', status: 503, times: 'always' },
    ],
  ])('%s down: nothing is stored', async (_name, fault) => {
    const before = await house.credentials.list(MERCHANT_A);
    house.aws.fault(fault);
    const error = await failure(house.credentials.store(ACTOR, MERCHANT_A, input()));
    expect(error).toMatchObject({ code: 'vault.unavailable', options: { retryAfterSeconds: 5 } });
    expect(await house.credentials.list(MERCHANT_A)).toEqual(before);
  });
});

describe('one store alone opens nothing', () => {
  test('Secrets Manager: its value is ciphertext, and KMS does not take it', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const { secret_name } = await rowOf(id);
    const bytes = Buffer.from((await getSecret(secret_name)).SecretBinary ?? []);
    for (const canary of CANARIES)
      for (const spelling of spellings(canary)) expect(bytes.includes(spelling)).toBe(false);
    // With every right at KMS, but without the wrapped key of this version: the envelope itself, then a key made for the same place.
    const place = { merchantId: MERCHANT_A, credentialId: id, version: 1 };
    const sealed = { ...(await sealedOf(id)), wrappedKey: bytes };
    expect(await codeOf(house.parts.secrets.open(place, sealed))).toBe('credential.unreadable');
    const other = await house.parts.secrets.seal(place, TEMPORARY, unannounced);
    const mixed = { ...sealed, wrappedKey: other.wrappedKey };
    expect(await codeOf(house.parts.secrets.open(place, mixed))).toBe('credential.unreadable');
  });

  test('Postgres: a dump holds the wrapped key, which opens only through KMS and fits nothing without the ciphertext', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const { wrapped_key } = await rowOf(id);
    for (const canary of CANARIES)
      for (const spelling of spellings(canary)) expect(wrapped_key.includes(spelling)).toBe(false);
    house.aws.setKmsKeyState(KMS_KEY.keyId, 'Disabled');
    expect(await codeOf(openFresh(id))).toBe('credential.unreadable');
    house.aws.setKmsKeyState(KMS_KEY.keyId, 'Enabled');
    house.aws.fault({
      service: 'secretsmanager',
      status: 400,
      type: 'AccessDeniedException',
      times: 'always',
    });
    expect(await codeOf(openFresh(id))).toBe('credential.unreadable');
  });

  test('KMS is told, and checks, what a key is for', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    await openFresh(id);
    const context = {
      app: 'mbk',
      env: 'test',
      merchant_id: MERCHANT_A,
      credential_id: id,
      version: '1',
      purpose: 'aws-credential',
    };
    expect(bodyOf('GenerateDataKey')['EncryptionContext']).toEqual(context);
    expect(bodyOf('Decrypt')['EncryptionContext']).toEqual(context);
  });
});

describe('what is sealed for one place opens at no other, whoever moved it there', () => {
  const HALVES = {
    'the wrapped key': ['wrapped_key'],
    'the ciphertext': ['secret_name', 'secret_version_id'],
    both: ['wrapped_key', 'secret_name', 'secret_version_id'],
  };

  test.each(Object.entries(HALVES))(
    '%s of another credential, merchant or version',
    async (_name, columns) => {
      const mine = await house.credentials.store(ACTOR, MERCHANT_A, input());
      const sources = [
        {
          merchantId: MERCHANT_A,
          id: (await house.credentials.store(ACTOR, MERCHANT_A, input(TEMPORARY))).id,
        },
        {
          merchantId: MERCHANT_B,
          id: (await house.credentials.store(ACTOR, MERCHANT_B, input(TEMPORARY))).id,
        },
      ];
      for (const from of sources) {
        await moveColumns(columns, from, { merchantId: MERCHANT_A, id: mine.id });
        expect(await codeOf(openFresh(mine.id))).toBe('credential.unreadable');
      }
      // The same credential under another version number: an old secret that is put back as the new one.
      const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
      await house.asAdmin((sql) =>
        sql.query('UPDATE credential_versions SET version = 2 WHERE credential_id = $1', [id]),
      );
      expect(await codeOf(house.vault.open(ACTOR, MERCHANT_A, id, 2))).toBe('credential.unreadable');
    },
  );

  test('an altered ciphertext', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const { secret_name } = await rowOf(id);
    const envelope = Buffer.from((await getSecret(secret_name)).SecretBinary ?? []);
    envelope.writeUInt8(envelope.readUInt8(120) ^ 1, 120);
    const client = operator();
    const forged = await client.send(
      new CreateSecretCommand({ Name: `mbk/test/forged/${id}`, SecretBinary: envelope }),
    );
    await house.asAdmin((sql) =>
      sql.query(
        'UPDATE credential_versions SET secret_name = $2, secret_version_id = $3 WHERE credential_id = $1',
        [id, `mbk/test/forged/${id}`, forged.VersionId],
      ),
    );
    expect(await codeOf(openFresh(id))).toBe('credential.unreadable');
  });
});

describe('the record of an opening comes first', () => {
  test('and is there once per opening, with the version', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    for (let i = 0; i < 5; i++) await house.vault.open(ACTOR, MERCHANT_A, id, 1);
    expect(await audit(MERCHANT_A, id)).toEqual(['credential.created allowed', 'credential.opened allowed']);
  });

  test('without it neither KMS nor Secrets Manager is asked', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    house.aws.forget();
    await house.asAdmin(async (sql) => {
      const signature = 'audit_append(text, text, text, text, text, text, text)';
      await sql.query(`REVOKE EXECUTE ON FUNCTION ${signature} FROM merchant_bedrock_app`);
      try {
        await expect(house.vault.open(ACTOR, MERCHANT_A, id, 1)).rejects.toThrow();
        await expect(house.credentials.test(ACTOR, MERCHANT_A, id)).rejects.toThrow();
      } finally {
        await sql.query(`GRANT EXECUTE ON FUNCTION ${signature} TO merchant_bedrock_app`);
      }
    });
    expect(house.aws.journal).toEqual([]);
    await expect(house.vault.open(ACTOR, MERCHANT_A, id, 1)).resolves.toBeDefined();
  });

  test('it is committed before KMS is asked, so that even a crash there leaves it', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    let seenBefore: string[] = [];
    const watched = new Vault({
      ...house.parts,
      secrets: {
        open: async () => {
          seenBefore = await audit(MERCHANT_A, id);
          throw new Error('the process dies here');
        },
      },
    });
    await expect(watched.open(ACTOR, MERCHANT_A, id, 1)).rejects.toThrow('dies here');
    expect(seenBefore.at(-1)).toBe('credential.opened allowed');
  });
});

describe('deletion', () => {
  test('shreds at once: even with the ciphertext back, nothing opens it', async () => {
    const stored = await house.credentials.store(ACTOR, MERCHANT_A, input(LONG_LIVED, true));
    const before = await rowOf(stored.id);
    await house.vault.open(ACTOR, MERCHANT_A, stored.id, 1);
    await house.credentials.delete(ACTOR, MERCHANT_A, stored.id);

    for (const use of [
      house.vault.open(ACTOR, MERCHANT_A, stored.id, 1),
      house.vault.current(MERCHANT_A, stored.id, true),
      house.credentials.get(MERCHANT_A, stored.id),
      house.credentials.test(ACTOR, MERCHANT_A, stored.id),
      house.credentials.makeDefault(ACTOR, MERCHANT_A, stored.id),
      house.credentials.delete(ACTOR, MERCHANT_A, stored.id),
    ])
      expect(await codeOf(use)).toBe('credential.not_found');
    expect((await house.credentials.list(MERCHANT_A)).map(({ id }) => id)).not.toContain(stored.id);
    expect(await rowOf(stored.id)).toMatchObject({ state: 'destroyed', wrapped_key: null });
    expect(await admitted(stored.id)).toBe('credential');

    expect(bodyOf('DeleteSecret')).toMatchObject({ RecoveryWindowInDays: 7 });
    await operator().send(new RestoreSecretCommand({ SecretId: before.secret_name }));
    expect(await codeOf(house.vault.open(ACTOR, MERCHANT_A, stored.id, 1))).toBe('credential.not_found');
    // The trail keeps that it was there; of six attempts after, none left a record of an effect.
    expect(await audit(MERCHANT_A, stored.id)).toEqual([
      'credential.created allowed',
      'credential.made_default allowed',
      'credential.opened allowed',
      'credential.deleted allowed',
    ]);
  });

  test('takes the default with it, and only its own', async () => {
    const first = await house.credentials.store(ACTOR, MERCHANT_A, input(LONG_LIVED, true));
    const second = await house.credentials.store(ACTOR, MERCHANT_A, input());
    await house.credentials.delete(ACTOR, MERCHANT_A, second.id);
    expect(await defaultOf(MERCHANT_A)).toBe(first.id);
    await house.credentials.delete(ACTOR, MERCHANT_A, first.id);
    expect(await defaultOf(MERCHANT_A)).toBeNull();
  });

  test('holds although Secrets Manager fails; what stayed behind is reported', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const { secret_name } = await rowOf(id);
    house.aws.fault({ service: 'secretsmanager', operation: 'DeleteSecret', status: 500, times: 'always' });
    await house.credentials.delete(ACTOR, MERCHANT_A, id);
    expect(house.leftovers).toEqual([secret_name]);
    expect(await codeOf(house.vault.open(ACTOR, MERCHANT_A, id, 1))).toBe('credential.not_found');
  });

  test('while a secret is being opened: it is used by those who began before and kept by none', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    house.aws.fault({ service: 'kms', operation: 'Decrypt', delayMs: 1_000 });
    const opening = house.vault.open(ACTOR, MERCHANT_A, id, 1);
    await until('it is being opened', () => vaultCalls().includes('Decrypt'));
    await house.credentials.delete(ACTOR, MERCHANT_A, id);
    await opening;
    expect(await codeOf(house.vault.open(ACTOR, MERCHANT_A, id, 1))).toBe('credential.not_found');
  });

  test('of one credential by many at once happens once', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const all = await Promise.allSettled(
      Array.from({ length: 8 }, () => house.credentials.delete(ACTOR, MERCHANT_A, id)),
    );
    expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(
      (await audit(MERCHANT_A, id)).filter((line) => line.startsWith('credential.deleted')),
    ).toHaveLength(1);
  });
});

describe('a failing stored credential never leads to another key', () => {
  const FAULTS: readonly [string, FaultRule | 'Disabled' | 'PendingDeletion', string][] = [
    ['KMS key disabled', 'Disabled', 'credential.unreadable'],
    ['KMS key pending deletion', 'PendingDeletion', 'credential.unreadable'],
    ['KMS denies', { service: 'kms', status: 400, type: 'AccessDeniedException' }, 'credential.unreadable'],
    ['KMS throttles', { service: 'kms', status: 400, type: 'ThrottlingException' }, 'vault.unavailable'],
    ['KMS is down', { service: 'kms', status: 500, type: 'KMSInternalException' }, 'vault.unavailable'],
    ['KMS hangs up', { service: 'kms', reset: true }, 'vault.unavailable'],
    [
      'Secrets Manager lost it',
      { service: 'secretsmanager', status: 400, type: 'ResourceNotFoundException' },
      'credential.unreadable',
    ],
    [
      'Secrets Manager marked it for deletion',
      { service: 'secretsmanager', status: 400, type: 'InvalidRequestException' },
      'credential.unreadable',
    ],
    [
      'Secrets Manager denies',
      { service: 'secretsmanager', status: 400, type: 'AccessDeniedException' },
      'credential.unreadable',
    ],
    [
      'Secrets Manager cannot decrypt',
      { service: 'secretsmanager', status: 400, type: 'DecryptionFailure' },
      'credential.unreadable',
    ],
    [
      'Secrets Manager is down',
      { service: 'secretsmanager', status: 503, type: 'InternalServiceError' },
      'vault.unavailable',
    ],
    [
      'AWS does not know the service itself',
      { service: 'kms', status: 400, type: 'UnrecognizedClientException' },
      'vault.unavailable',
    ],
  ];

  test.each(FAULTS)('%s', async (_name, fault, code) => {
    // The merchant has everything else as well: a default that works, direct keys and the service's own account.
    const broken = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const fine = await house.credentials.store(ACTOR, MERCHANT_A, input(TEMPORARY, true));
    await house.vault.open(ACTOR, MERCHANT_A, fine.id, 1);
    house.aws.forget();
    if (typeof fault === 'string') house.aws.setKmsKeyState(KMS_KEY.keyId, fault);
    else house.aws.fault({ ...fault, times: 'always' });

    const error = await failure(resolveStored(broken.id, fine.id));
    expect(error.code).toBe(code);
    expect(error.options.retryAfterSeconds).toBe(code === 'vault.unavailable' ? 5 : undefined);
    expect(error.detail).not.toMatch(/KMS|arn:|Exception|stand-in/);
    // The oracle: besides KMS and Secrets Manager, asked by the service itself, nobody was asked anything.
    expect(house.aws.journal.map(({ service }) => service)).not.toContain('sts');
    expect(new Set(house.aws.journal.map((entry) => entry.accessKeyId))).toEqual(
      new Set([SERVICE_KEY.accessKeyId]),
    );
    // A failure is not kept, either.
    house.aws.forget();
    house.aws.setKmsKeyState(KMS_KEY.keyId, 'Enabled');
    const resolved = await resolveStored(broken.id, fine.id);
    expect(resolved).toMatchObject({ source: 'stored', credentialId: broken.id, version: 1 });
    expect(plain(resolved.credential)).toEqual(plain(LONG_LIVED));
  });
});

describe('a test', () => {
  test('that is passed says so everywhere', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    const { credential, identity } = await house.credentials.test(ACTOR, MERCHANT_A, id);
    expect(identity).toEqual({ accountId: A_ACCOUNT, arn: `arn:aws:iam::${A_ACCOUNT}:user/stand-in` });
    expect(credential).toMatchObject({ id, testResult: 'ok', testedAt: expect.any(Date) as unknown });
    expect((await audit(MERCHANT_A, id)).at(-1)).toBe('credential.tested allowed');
  });

  test('goes the whole way even when the credential is open in memory', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    await house.vault.open(ACTOR, MERCHANT_A, id, 1);
    house.aws.setKmsKeyState(KMS_KEY.keyId, 'Disabled');
    expect(await codeOf(house.credentials.test(ACTOR, MERCHANT_A, id))).toBe('credential.unreadable');
    expect(await house.credentials.get(MERCHANT_A, id)).toMatchObject({
      testResult: 'credential.unreadable',
    });
    expect((await audit(MERCHANT_A, id)).at(-1)).toBe('credential.tested failed');
  });

  test('with a key that AWS refuses by now is recorded as denied', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    house.aws.addAccessKey({ ...known(LONG_LIVED, A_ACCOUNT), state: 'deactivated' });
    expect(await codeOf(house.credentials.test(ACTOR, MERCHANT_A, id))).toBe('credential.refused_by_aws');
    expect(await house.credentials.get(MERCHANT_A, id)).toMatchObject({
      testResult: 'credential.refused_by_aws',
    });
    expect((await audit(MERCHANT_A, id)).at(-1)).toBe('credential.tested denied');
  });

  test('with a key that is of another account by now is refused', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    house.aws.addAccessKey(known(LONG_LIVED, '555566667777'));
    const error = await failure(house.credentials.test(ACTOR, MERCHANT_A, id));
    expect(error.code).toBe('credential.refused_by_aws');
    expect(error.detail).toMatch(/another/);
    expect(await house.credentials.get(MERCHANT_A, id)).toMatchObject({
      testResult: 'account-changed',
      accountId: A_ACCOUNT,
    });
    expect((await audit(MERCHANT_A, id)).at(-1)).toBe('credential.tested denied');
  });
});

describe('another merchant', () => {
  test('finds, opens, tests, deletes and chooses nothing; the answer is that of what does not exist', async () => {
    const { id } = await house.credentials.store(ACTOR, MERCHANT_A, input());
    house.aws.forget();
    const attempts = (credentialId: CredentialId) => [
      house.credentials.get(MERCHANT_B, credentialId),
      house.vault.current(MERCHANT_B, credentialId, true),
      house.vault.open(ACTOR, MERCHANT_B, credentialId, 1),
      house.credentials.test(ACTOR, MERCHANT_B, credentialId),
      house.credentials.makeDefault(ACTOR, MERCHANT_B, credentialId),
      house.credentials.delete(ACTOR, MERCHANT_B, credentialId),
    ];
    const foreign = await Promise.all(attempts(id).map(failure));
    const absent = await Promise.all(attempts(newCredentialId()).map(failure));
    expect(foreign).toEqual(absent);
    expect(new Set(foreign.map(({ code }) => code))).toEqual(new Set(['credential.not_found']));
    expect((await house.credentials.list(MERCHANT_B)).map((stored) => stored.id)).not.toContain(id);
    expect(house.aws.journal).toEqual([]);
    await expect(house.credentials.get(MERCHANT_A, id)).resolves.toMatchObject({ id });
  });
});

async function openFresh(id: CredentialId): Promise<StoredMaterial> {
  house.parts.opened.evict(MERCHANT_A, id);
  return house.vault.open(ACTOR, MERCHANT_A, id, 1);
}

const noRoles: ResolverParts['roleSessions'] = {
  holds: () => true,
  signerOf: (_place, material) =>
    material.kind === 'assume-role'
      ? Promise.reject(new Error('no role was stored'))
      : Promise.resolve({ credential: material, poolKey: '' }),
};

/** A merchant who may do everything, so that every wrong way would be open. */
function resolveStored(id: CredentialId, defaultCredentialId: CredentialId) {
  using resolver = new CredentialResolver({
    vault: house.vault,
    identity: house.parts.identity,
    audit: { append: unrecorded },
    sessions: { open: () => Promise.reject(new Error('no session was sent')) },
    roleSessions: noRoles,
    clock: { now: () => Date.now() },
    regions: ['us-east-1'],
    serviceDefault: { accessKey: SERVICE_KEY, region: 'us-east-1' },
  });
  return resolver.resolve({
    principal: { kind: 'merchant', merchantId: MERCHANT_A, subject: ACTOR.subject, scopes: ['invoke'] },
    merchant: {
      id: MERCHANT_A,
      name: 'A',
      status: 'active',
      plan: 'open@1',
      revision: 1,
      directAllowed: true,
      serviceDefaultsAllowed: true,
      regions: [],
      defaultCredentialId,
    },
    choice: { kind: 'stored', credentialId: id },
    actor: ACTOR,
  });
}

function plain(credential: StoredMaterial): unknown {
  if (credential.kind === 'assume-role') return credential;
  if (credential.kind === 'bedrock-api-key') return credential.apiKey.reveal();
  const { accessKeyId, secretAccessKey, sessionToken } = credential;
  return [accessKeyId, secretAccessKey.reveal(), sessionToken?.reveal()];
}

/** Names of the operations that KMS and Secrets Manager received. */
function vaultCalls(): string[] {
  return house.aws.journal
    .filter(({ service }) => service === 'kms' || service === 'secretsmanager')
    .map(({ operation }) => operation);
}

/** The body of the last request of this operation. */
function bodyOf(operation: string): Record<string, unknown> {
  const entry = house.aws.journal.filter((one) => one.operation === operation).at(-1);
  if (entry === undefined) throw new Error(`${operation} was not called`);
  return JSON.parse(Buffer.from(entry.bodyBase64, 'base64').toString()) as Record<string, unknown>;
}

/** Somebody who may read and write Secrets Manager, with the service's own key. */
function operator(): SecretsManagerClient {
  return new SecretsManagerClient({
    region: 'us-east-1',
    endpoint: house.aws.url,
    credentials: known(SERVICE_KEY, ''),
    maxAttempts: 1,
  });
}

function getSecret(name: string) {
  return operator().send(new GetSecretValueCommand({ SecretId: name }));
}

interface VersionRow {
  state: string;
  wrapped_key: Buffer;
  kms_key_arn: string;
  secret_name: string;
  secret_version_id: string;
}

function rowOf(id: CredentialId): Promise<VersionRow> {
  return house.asAdmin(async (sql) => {
    const found = await sql.query<VersionRow>('SELECT * FROM credential_versions WHERE credential_id = $1', [
      id,
    ]);
    const [row] = found.rows;
    if (row === undefined) throw new Error('no such version');
    return row;
  });
}

async function sealedOf(id: CredentialId) {
  const row = await rowOf(id);
  return {
    wrappedKey: row.wrapped_key,
    kmsKeyArn: row.kms_key_arn,
    secretName: row.secret_name,
    secretVersionId: row.secret_version_id,
  };
}

interface Where {
  merchantId: MerchantId;
  id: CredentialId;
}

/** What somebody with write access to the database could do. */
async function moveColumns(columns: readonly string[], from: Where, to: Where): Promise<void> {
  const list = columns.map((column) => `${column} = source.${column}`).join(', ');
  await house.asAdmin((sql) =>
    sql.query(
      `UPDATE credential_versions AS target SET ${list} FROM credential_versions AS source
       WHERE source.merchant_id = $1 AND source.credential_id = $2 AND target.merchant_id = $3 AND target.credential_id = $4`,
      [from.merchantId, from.id, to.merchantId, to.id],
    ),
  );
}

function audit(merchantId: MerchantId, id: CredentialId): Promise<string[]> {
  return house.asAdmin(async (sql) => {
    const found = await sql.query<{ line: string }>(
      `SELECT action || ' ' || outcome AS line FROM audit_events WHERE merchant_id = $1 AND resource = $2 ORDER BY seq`,
      [merchantId, `credential/${id}`],
    );
    return found.rows.map(({ line }) => line);
  });
}

function defaultOf(merchantId: MerchantId): Promise<string | null> {
  return house.asAdmin(async (sql) => {
    const found = await sql.query<{ id: string | null }>(
      'SELECT default_credential_id AS id FROM merchants WHERE id = $1',
      [merchantId],
    );
    return found.rows[0]?.id ?? null;
  });
}

/** What the ledger says to a call with this credential. */
function admitted(id: CredentialId): Promise<string> {
  const call = {
    pos: 1,
    operation: 'converse',
    model_id: 'm',
    region: 'us-east-1',
    source: 'stored',
    credential_id: id,
    credential_version: 1,
    subject: ACTOR.subject,
    request_id: 'req-2',
    deadline_seconds: 60,
    tier: 'standard',
    input_tokens: 0,
    output_tokens: 0,
    output_tokens_most: 0,
    clampable: false,
  };
  return house.asAdmin(async (sql) => {
    const found = await sql.query<{ verdict: string }>(
      `SELECT ledger_hold(gen_random_uuid(), $1::jsonb)->'answers'->0->>'verdict' AS verdict`,
      [JSON.stringify([{ ...call, merchant_id: MERCHANT_A }])],
    );
    return found.rows[0]?.verdict ?? '';
  });
}

/** Every row of every table as text, bytes in hex and base64. */
function dump(): Promise<string> {
  return house.asAdmin(async (sql) => {
    const tables = await sql.query<{ name: string }>(
      `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'`,
    );
    let text = '';
    for (const { name } of tables.rows) {
      const { rows } = await sql.query<Record<string, unknown>>(`SELECT * FROM "${name}"`);
      for (const row of rows)
        for (const value of Object.values(row))
          text += Buffer.isBuffer(value)
            ? `${value.toString('latin1')}\n${value.toString('hex')}\n`
            : `${JSON.stringify(value)}\n`;
    }
    return text;
  });
}
