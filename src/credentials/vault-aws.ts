import { randomUUID } from 'node:crypto';
import { DecryptCommand, GenerateDataKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import type { AccessKey, StoredMaterial } from '../domain/credential.ts';
import { reachOf } from '../domain/address.ts';
import { isBedrockRegion } from '../domain/region.ts';
import { describeAwsFailure } from './aws-failure.ts';
import { encryptionContextOf } from './encryption-context.ts';
import type { EnvelopeContext } from './envelope.ts';
import { EnvelopeError, open, seal } from './envelope.ts';
import { decodeMaterial, encodeMaterial } from './material.ts';
import { sdkOptions } from './sdk-options-aws.ts';
import { VaultRefusal } from './secret-vault.ts';
import type {
  NextVersion,
  PutVersion,
  SealedVersion,
  SecretPlace,
  SecretVault,
  VersionLabels,
} from './secret-vault.ts';
import { both, isGone, notNow, notOpened, notStored } from './vault-failure.ts';

export interface AwsSecretVaultOptions {
  /** Where the operator keeps KMS key and secrets; nothing to do with the regions that merchants call. */
  region: string;
  /** The deployment, e.g. `production`: part of every encryption context and secret name. */
  environment: string;
  /** Key id, alias or ARN. */
  kmsKeyId: string;
  /** In place of AWS's own, e.g. VPC endpoints. */
  endpoints?: { kms?: string; secretsManager?: string };
  /** AWS's own names may lead to addresses of a VPC. */
  privateNames?: boolean;
  /** The service's own keys; without them the SDK finds its workload identity. */
  serviceCredentials?: AccessKey;
  /** Of one attempt; three are made. Default 3_000. */
  requestTimeoutMs?: number;
}

/** What the service asks of Secrets Manager and KMS; an administrator asks more (data-keys-aws.ts). */
export class AwsSecretVault implements SecretVault, Disposable {
  readonly #kms: KMSClient;
  readonly #secrets: SecretsManagerClient;
  readonly #kmsKeyId: string;
  readonly #environment: string;

  constructor(options: AwsSecretVaultOptions) {
    const { region, endpoints, serviceCredentials, requestTimeoutMs = 3_000 } = options;
    if (!isBedrockRegion(region)) throw new TypeError('the region of the vault is not a known one');
    if (!/^[a-z0-9-]{1,32}$/.test(options.environment))
      throw new TypeError('the environment must be short and plain: it names secrets');
    const clientFor = (host: string, given: string | undefined) => {
      const endpoint = given ?? `https://${host}.${region}.amazonaws.com`;
      const reach = reachOf(given, options.privateNames);
      const target = { region, endpoint, reach, maxAttempts: 3, requestTimeoutMs };
      return sdkOptions(target, serviceCredentials ?? 'workload');
    };
    this.#kms = new KMSClient(clientFor('kms', endpoints?.kms));
    this.#secrets = new SecretsManagerClient(clientFor('secretsmanager', endpoints?.secretsManager));
    this.#kmsKeyId = options.kmsKeyId;
    this.#environment = options.environment;
  }

  seal(
    place: SecretPlace,
    credential: StoredMaterial,
    announce: (secretName: string) => Promise<void>,
  ): Promise<SealedVersion> {
    return this.#seal(place, credential, this.#kmsKeyId, async (envelope) => {
      const secretName = `mbk/${this.#environment}/${randomUUID()}/${place.credentialId}`;
      await announce(secretName);
      return { secretName, secretVersionId: await this.#create(place, secretName, envelope) };
    });
  }

  sealNext(place: SecretPlace, credential: StoredMaterial, next: NextVersion): Promise<SealedVersion> {
    return this.#seal(place, credential, next.kmsKeyArn, (envelope) => this.#put(next, envelope));
  }

  async #seal(
    place: SecretPlace,
    credential: StoredMaterial,
    kmsKeyId: string,
    write: (envelope: Buffer) => Promise<PutVersion>,
  ): Promise<SealedVersion> {
    const context = encryptionContextOf(this.#environment, place);
    const { dataKey, wrappedKey, kmsKeyArn } = await this.#newDataKey(context, kmsKeyId);
    const plaintext = encodeMaterial(credential);
    try {
      const envelope = seal(plaintext, dataKey, { ...context });
      return { wrappedKey, kmsKeyArn, ...(await write(envelope)) };
    } finally {
      plaintext.fill(0);
      dataKey.fill(0);
    }
  }

  async open(place: SecretPlace, sealed: SealedVersion): Promise<StoredMaterial> {
    const context = encryptionContextOf(this.#environment, place);
    const [dataKey, envelope] = await both(this.#unwrap(sealed, context), this.#read(sealed));
    let plaintext: Buffer | undefined;
    try {
      plaintext = open(envelope, dataKey, context);
      return decodeMaterial(plaintext);
    } catch (error) {
      const altered =
        error instanceof EnvelopeError ? error : new Error('sealed material has an unknown form');
      throw new VaultRefusal('credential', altered);
    } finally {
      plaintext?.fill(0);
      dataKey.fill(0);
    }
  }

  async discard(secretName: string, when: 'in-7-days' | 'now'): Promise<void> {
    const how = when === 'now' ? { ForceDeleteWithoutRecovery: true } : { RecoveryWindowInDays: 7 };
    try {
      await this.#secrets.send(new DeleteSecretCommand({ SecretId: secretName, ...how }));
    } catch (error) {
      const failure = describeAwsFailure('secretsmanager:DeleteSecret', error);
      if (isGone(failure)) return;
      throw notNow(failure, 'The ciphertext could not be removed. Its key is gone, so it cannot be opened.');
    }
  }

  async relabel(secretName: string, { current, previous, pending }: VersionLabels): Promise<void> {
    try {
      const found = await this.#secrets.send(new DescribeSecretCommand({ SecretId: secretName }));
      const versions = Object.entries(found.VersionIdsToStages ?? {});
      const bearerOf = (label: string) => versions.find(([, labels]) => labels.includes(label))?.[0];
      const before = bearerOf('AWSCURRENT');
      await this.#move(secretName, 'AWSCURRENT', before, current);
      // AWS itself puts AWSPREVIOUS on the version that AWSCURRENT leaves.
      await this.#move(
        secretName,
        'AWSPREVIOUS',
        before === current ? bearerOf('AWSPREVIOUS') : before,
        previous,
      );
      const waiting = bearerOf('AWSPENDING');
      if (waiting !== pending) await this.#move(secretName, 'AWSPENDING', waiting, undefined);
    } catch (error) {
      const failure = describeAwsFailure('secretsmanager:UpdateSecretVersionStage', error);
      if (isGone(failure)) return;
      throw notNow(
        failure,
        'The labels of a secret could not be moved. No call depends on them; the next rotation waits for them.',
      );
    }
  }

  async #move(SecretId: string, VersionStage: string, from?: string, to?: string): Promise<void> {
    if (from === to) return;
    const command = new UpdateSecretVersionStageCommand({
      SecretId,
      VersionStage,
      ...(from !== undefined && { RemoveFromVersionId: from }),
      ...(to !== undefined && { MoveToVersionId: to }),
    });
    await this.#secrets.send(command);
  }

  [Symbol.dispose](): void {
    this.#kms.destroy();
    this.#secrets.destroy();
  }

  async #newDataKey(context: EnvelopeContext, kmsKeyId: string) {
    try {
      const key = await this.#kms.send(
        new GenerateDataKeyCommand({
          KeyId: kmsKeyId,
          KeySpec: 'AES_256',
          EncryptionContext: { ...context },
        }),
      );
      return {
        dataKey: bytes(key.Plaintext),
        wrappedKey: bytes(key.CiphertextBlob),
        kmsKeyArn: text(key.KeyId),
      };
    } catch (error) {
      throw notStored('kms:GenerateDataKey', error);
    }
  }

  /** The name holds no text of a user; the token makes a repeated attempt the same attempt. */
  async #create(
    { merchantId, credentialId }: SecretPlace,
    secretName: string,
    envelope: Buffer,
  ): Promise<string> {
    const secretVersionId = randomUUID();
    try {
      await this.#secrets.send(
        new CreateSecretCommand({
          Name: secretName,
          ClientRequestToken: secretVersionId,
          KmsKeyId: this.#kmsKeyId,
          SecretBinary: envelope,
          Tags: [
            { Key: 'merchant_id', Value: merchantId },
            { Key: 'credential_id', Value: credentialId },
          ],
        }),
      );
      return secretVersionId;
    } catch (error) {
      throw notStored('secretsmanager:CreateSecret', error);
    }
  }

  async #put({ secretName, secretVersionId }: NextVersion, envelope: Buffer): Promise<PutVersion> {
    try {
      await this.#secrets.send(
        new PutSecretValueCommand({
          SecretId: secretName,
          ClientRequestToken: secretVersionId,
          SecretBinary: envelope,
          VersionStages: ['AWSPENDING'],
        }),
      );
      return { secretName, secretVersionId };
    } catch (error) {
      const failure = describeAwsFailure('secretsmanager:PutSecretValue', error);
      throw isGone(failure)
        ? new VaultRefusal('credential', failure.cause)
        : notStored('secretsmanager:PutSecretValue', error);
    }
  }

  async #unwrap({ wrappedKey, kmsKeyArn }: SealedVersion, context: EnvelopeContext): Promise<Buffer> {
    try {
      const key = await this.#kms.send(
        new DecryptCommand({
          CiphertextBlob: wrappedKey,
          KeyId: kmsKeyArn,
          EncryptionContext: { ...context },
        }),
      );
      return bytes(key.Plaintext);
    } catch (error) {
      throw notOpened('kms:Decrypt', error);
    }
  }

  async #read({ secretName, secretVersionId }: SealedVersion): Promise<Buffer> {
    try {
      const secret = await this.#secrets.send(
        new GetSecretValueCommand({ SecretId: secretName, VersionId: secretVersionId }),
      );
      return bytes(secret.SecretBinary);
    } catch (error) {
      throw notOpened('secretsmanager:GetSecretValue', error);
    }
  }
}

function bytes(value: Uint8Array | undefined): Buffer {
  if (value === undefined) throw new TypeError('AWS answered without the bytes that were asked for');
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
}

function text(value: string | undefined): string {
  if (value === undefined) throw new TypeError('AWS answered without the name that was asked for');
  return value;
}
