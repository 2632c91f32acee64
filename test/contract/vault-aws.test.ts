import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { SealedVersion, SecretPlace } from '../../src/credentials/secret-vault.ts';
import { AwsSecretVault } from '../../src/credentials/vault-aws.ts';
import type { CredentialId } from '../../src/domain/ids.ts';
import type { StandIn } from '../aws/stand-in.ts';
import {
  A_ACCOUNT,
  CANARIES,
  KMS_KEY,
  LONG_LIVED,
  MERCHANT_A,
  OPERATOR_ACCOUNT,
  SERVICE_KEY,
  TEMPORARY,
  codeOf,
  failure,
  known,
  secretVault,
  spellings,
  startAws,
  withEnvironment,
  unannounced,
} from './vault-setup.ts';

const PLACE: SecretPlace = {
  merchantId: MERCHANT_A,
  credentialId: 'cred_0000000000000000000001' as CredentialId,
  version: 1,
};

let aws: StandIn;

beforeAll(async () => {
  aws = await startAws();
});
afterAll(() => aws.close());
beforeEach(() => {
  aws.forget();
  aws.setKmsKeyState(KMS_KEY.keyId, 'Enabled');
});

describe('every request', () => {
  test('is signed by the service itself and holds', async () => {
    using vault = secretVault(aws);
    const sealed = await vault.seal(PLACE, LONG_LIVED, unannounced);
    await vault.open(PLACE, sealed);
    await vault.discard(sealed.secretName, 'now');
    expect(aws.journal.map(({ operation }) => operation).sort()).toEqual([
      'CreateSecret',
      'Decrypt',
      'DeleteSecret',
      'GenerateDataKey',
      'GetSecretValue',
    ]);
    for (const entry of aws.journal)
      expect(entry).toMatchObject({
        verified: true,
        accessKeyId: SERVICE_KEY.accessKeyId,
        accountId: OPERATOR_ACCOUNT,
        protocol: 'h1',
        status: 200,
      });
  });

  test('is the same whatever the environment says', async () => {
    const ambient = {
      AWS_ACCESS_KEY_ID: LONG_LIVED.accessKeyId,
      AWS_SECRET_ACCESS_KEY: LONG_LIVED.secretAccessKey.reveal(),
      AWS_REGION: 'eu-west-1',
      AWS_ENDPOINT_URL: 'http://127.0.0.1:9',
      AWS_ENDPOINT_URL_KMS: 'http://127.0.0.1:9',
      AWS_ENDPOINT_URL_SECRETS_MANAGER: 'http://127.0.0.1:9',
      AWS_BEARER_TOKEN_KMS: 'bearer',
      AWS_AUTH_SCHEME_PREFERENCE: 'httpBearerAuth',
      AWS_MAX_ATTEMPTS: '1',
      AWS_USE_FIPS_ENDPOINT: 'true',
      AWS_PROFILE: 'other',
    };
    await withEnvironment(ambient, async () => {
      using vault = secretVault(aws);
      await vault.open(PLACE, await vault.seal(PLACE, LONG_LIVED, unannounced));
    });
    expect(aws.journal).toHaveLength(4);
    for (const entry of aws.journal)
      expect(entry).toMatchObject({
        verified: true,
        accessKeyId: SERVICE_KEY.accessKeyId,
        region: 'us-east-1',
      });
  });

  test('without keys of its own the service uses its workload identity, and only here', async () => {
    const workload = {
      AWS_ACCESS_KEY_ID: SERVICE_KEY.accessKeyId,
      AWS_SECRET_ACCESS_KEY: SERVICE_KEY.secretAccessKey.reveal(),
    };
    const options = {
      region: 'us-east-1',
      environment: 'test',
      kmsKeyId: KMS_KEY.alias,
      endpoints: { kms: aws.url, secretsManager: aws.url },
    };
    await withEnvironment(workload, async () => {
      using vault = new AwsSecretVault(options);
      await vault.open(PLACE, await vault.seal(PLACE, TEMPORARY, unannounced));
    });
    expect(new Set(aws.journal.map(({ accessKeyId }) => accessKeyId))).toEqual(
      new Set([SERVICE_KEY.accessKeyId]),
    );
  });
});

describe('failures', () => {
  test('that pass are tried three times in all, then vault.unavailable with a time to wait', async () => {
    using vault = secretVault(aws);
    const sealed = await vault.seal(PLACE, LONG_LIVED, unannounced);
    aws.forget();
    aws.fault({ service: 'secretsmanager', status: 500, type: 'InternalServiceError', times: 'always' });
    const error = await failure(vault.open(PLACE, sealed));
    expect(error).toMatchObject({ code: 'vault.unavailable', options: { retryAfterSeconds: 5 } });
    expect(aws.journal.filter(({ service }) => service === 'secretsmanager')).toHaveLength(3);
    aws.forget();
    aws.fault({ service: 'secretsmanager', status: 500, type: 'InternalServiceError', times: 2 });
    await expect(vault.open(PLACE, sealed)).resolves.toBeDefined();
  });

  test('a repeated CreateSecret is the same attempt', async () => {
    using vault = secretVault(aws);
    aws.fault({ service: 'secretsmanager', operation: 'CreateSecret', reset: true, executed: true });
    const sealed = await vault.seal(PLACE, LONG_LIVED, unannounced);
    await expect(vault.open(PLACE, sealed)).resolves.toBeDefined();
    const bodies = aws.journal
      .filter(({ operation }) => operation === 'CreateSecret')
      .map((entry) => entry.bodyBase64);
    expect(bodies).toHaveLength(2);
    expect(new Set(bodies).size).toBe(1);
  });

  test('silence ends', async () => {
    using patient = secretVault(aws);
    const sealed = await patient.seal(PLACE, LONG_LIVED, unannounced);
    using vault = secretVault(aws, { requestTimeoutMs: 100 });
    aws.fault({ service: 'kms', hangHeaders: true, times: 'always' });
    const start = performance.now();
    expect(await codeOf(vault.open(PLACE, sealed))).toBe('vault.unavailable');
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  test('a host that is not there, and one that is not AWS', async () => {
    const impostor = createServer((_request, response) => response.end('<html>'));
    await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve));
    const { port } = impostor.address() as AddressInfo;
    for (const url of ['http://127.0.0.1:1', `http://127.0.0.1:${String(port)}`]) {
      using vault = secretVault(aws, { endpoints: { kms: url, secretsManager: url } });
      expect(await codeOf(vault.seal(PLACE, LONG_LIVED, unannounced))).toBe('vault.unavailable');
      expect(await codeOf(vault.open(PLACE, somewhere()))).toBe('vault.unavailable');
      expect(await codeOf(vault.discard('mbk/test/x', 'now'))).toBe('vault.unavailable');
    }
    impostor.closeAllConnections();
    await new Promise((resolve) => impostor.close(resolve));
  });

  test('no text of AWS and no secret leaves in an error, its cause included', async () => {
    using vault = secretVault(aws);
    const sealed = await vault.seal(PLACE, LONG_LIVED, unannounced);
    aws.fault({
      service: 'kms',
      operation: 'Decrypt',
      status: 400,
      type: 'AccessDeniedException',
      message: `canonical request ${CANARIES.join(' ')}`,
      times: 'always',
    });
    const error = await failure(vault.open(PLACE, sealed));
    const shown = [
      error.detail,
      error.stack,
      String(error.cause),
      JSON.stringify(error.options.cause),
    ].join();
    expect(shown).toContain('kms:Decrypt: AccessDeniedException');
    for (const canary of ['canonical request', ...CANARIES])
      for (const spelling of spellings(canary)) expect(shown).not.toContain(spelling);
  });

  test('a service that AWS does not know, or that has no identity at all, says nothing about the credential', async () => {
    using vault = secretVault(aws);
    const sealed = await vault.seal(PLACE, LONG_LIVED, unannounced);
    const stranger = { ...SERVICE_KEY, accessKeyId: 'AKIASTRANGER00000000' };
    using unknown = secretVault(aws, { serviceCredentials: stranger });
    expect(await codeOf(unknown.open(PLACE, sealed))).toBe('vault.unavailable');
  });
});

describe('discarding', () => {
  test('leaves a week for what was in use, and nothing of what was not', async () => {
    using vault = secretVault(aws);
    const [used, unused] = [
      await vault.seal(PLACE, LONG_LIVED, unannounced),
      await vault.seal(PLACE, LONG_LIVED, unannounced),
    ];
    await vault.discard(used.secretName, 'in-7-days');
    await vault.discard(unused.secretName, 'now');
    const bodies = aws.journal
      .filter(({ operation }) => operation === 'DeleteSecret')
      .map((entry) => JSON.parse(Buffer.from(entry.bodyBase64, 'base64').toString()) as unknown);
    expect(bodies).toEqual([
      { SecretId: used.secretName, RecoveryWindowInDays: 7 },
      { SecretId: unused.secretName, ForceDeleteWithoutRecovery: true },
    ]);
    expect(await codeOf(vault.open(PLACE, used))).toBe('credential.unreadable');
    expect(await codeOf(vault.open(PLACE, unused))).toBe('credential.unreadable');
  });

  test('what is gone, or going, is fine', async () => {
    using vault = secretVault(aws);
    const { secretName } = await vault.seal(PLACE, LONG_LIVED, unannounced);
    await vault.discard(secretName, 'in-7-days');
    await vault.discard(secretName, 'in-7-days');
    await vault.discard('mbk/test/never/was', 'now');
  });
});

describe('a place', () => {
  test('of another environment does not open', async () => {
    using test1 = secretVault(aws);
    using other = secretVault(aws, { environment: 'production' });
    const sealed = await test1.seal(PLACE, LONG_LIVED, unannounced);
    expect(await codeOf(other.open(PLACE, sealed))).toBe('credential.unreadable');
  });

  test('is bound by the envelope as well, should KMS ever not look', async () => {
    // A KMS that forgets contexts: every request is sent on without one.
    const forgetful = createServer((request, response) => {
      const pieces: Buffer[] = [];
      request.on('data', (piece: Buffer) => pieces.push(piece));
      request.on('end', () => {
        const answer = { Plaintext: Buffer.alloc(32, 5).toString('base64'), KeyId: 'arn:aws:kms:x:y:key/z' };
        const blob = { CiphertextBlob: Buffer.from('wrapped').toString('base64') };
        response.setHeader('content-type', 'application/x-amz-json-1.1');
        response.end(JSON.stringify({ ...answer, ...blob }));
      });
    });
    await new Promise<void>((resolve) => forgetful.listen(0, '127.0.0.1', resolve));
    const kms = `http://127.0.0.1:${String((forgetful.address() as AddressInfo).port)}`;
    {
      using vault = secretVault(aws, { endpoints: { kms, secretsManager: aws.url } });
      const sealed = await vault.seal(PLACE, LONG_LIVED, unannounced);
      await expect(vault.open(PLACE, sealed)).resolves.toBeDefined();
      expect(await codeOf(vault.open({ ...PLACE, version: 2 }, sealed))).toBe('credential.unreadable');
    }
    forgetful.closeAllConnections();
    await new Promise((resolve) => forgetful.close(resolve));
  });
});

test('an environment or region that could shape a name or host is refused when the service is built', () => {
  for (const environment of ['', 'Test', 'a/b', 'x'.repeat(33)])
    expect(() => secretVault(aws, { environment })).toThrow('environment');
  for (const region of ['', 'us-east-1.evil.example', 'cn-north-1'])
    expect(() => secretVault(aws, { region })).toThrow('region');
});

test('keys of the merchant are never used at the vault', async () => {
  aws.addAccessKey(known(LONG_LIVED, A_ACCOUNT));
  using vault = secretVault(aws);
  await vault.open(PLACE, await vault.seal(PLACE, LONG_LIVED, unannounced));
  expect(aws.journal.some(({ accessKeyId }) => accessKeyId === LONG_LIVED.accessKeyId)).toBe(false);
});

function somewhere(): SealedVersion {
  return {
    wrappedKey: Buffer.from('wrapped'),
    kmsKeyArn: 'arn:aws:kms:us-east-1:1:key/x',
    secretName: 'mbk/test/x',
    secretVersionId: 'v',
  };
}
