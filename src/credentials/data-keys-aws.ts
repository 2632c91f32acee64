import { DescribeKeyCommand, KMSClient, ReEncryptCommand } from '@aws-sdk/client-kms';
import {
  SecretsManagerClient,
  UpdateSecretCommand,
  paginateListSecretVersionIds,
} from '@aws-sdk/client-secrets-manager';
import { reachOf } from '../domain/address.ts';
import { ServiceError } from '../domain/errors.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { WrappedKey } from './data-key-store.ts';
import type { DataKeyWrapping } from './data-keys.ts';
import { encryptionContextOf } from './encryption-context.ts';
import { sdkOptions } from './sdk-options-aws.ts';
import type { AwsSecretVaultOptions } from './vault-aws.ts';

/** Nothing waits for this but an administrator. */
const ATTEMPTS = 5;
/** AWS answers UpdateSecret as if it had. */
const NOT_ENCRYPTED_ANEW =
  'left the version under the older key (it needs a label of AWS, kms:Decrypt there and kms:Encrypt here)';

/**
 * Moves data keys to another KMS key inside of KMS: ReEncrypt gives no plaintext out. Secrets Manager wraps its copy by a KMS key as well, so
 * that has to move too, or the older key could never be disabled.
 */
export class AwsDataKeys implements DataKeyWrapping, Disposable {
  readonly #kms: KMSClient;
  readonly #secrets: SecretsManagerClient;
  readonly #kmsKeyId: string;
  readonly #environment: string;

  constructor(options: AwsSecretVaultOptions) {
    const { region, endpoints, serviceCredentials, requestTimeoutMs = 5_000 } = options;
    const clientFor = (host: string, given?: string) => {
      const endpoint = given ?? `https://${host}.${region}.amazonaws.com`;
      const reach = reachOf(given, options.privateNames);
      const target = {
        region,
        endpoint,
        reach,
        maxAttempts: ATTEMPTS,
        requestTimeoutMs,
      };
      return sdkOptions(target, serviceCredentials ?? 'workload');
    };
    this.#kms = new KMSClient(clientFor('kms', endpoints?.kms));
    this.#secrets = new SecretsManagerClient(clientFor('secretsmanager', endpoints?.secretsManager));
    this.#kmsKeyId = options.kmsKeyId;
    this.#environment = options.environment;
  }

  async wanted(): Promise<string> {
    const { KeyMetadata } = await failing('kms:DescribeKey', () =>
      this.#kms.send(new DescribeKeyCommand({ KeyId: this.#kmsKeyId })),
    );
    if (KeyMetadata?.Arn === undefined) throw notDone('kms:DescribeKey', 'no ARN');
    return KeyMetadata.Arn;
  }

  async rewrap(key: WrappedKey, arn: string): Promise<Buffer> {
    // First: once the row names the new key, both halves are under it.
    await failing('secretsmanager:UpdateSecret', () =>
      this.#secrets.send(new UpdateSecretCommand({ SecretId: key.secretName, KmsKeyId: arn })),
    );
    const under = await failing('secretsmanager:ListSecretVersionIds', () => this.#kmsKeysOf(key));
    if (!under.includes(arn)) throw notDone('secretsmanager:UpdateSecret', NOT_ENCRYPTED_ANEW);
    const context = { ...encryptionContextOf(this.#environment, key) };
    const answer = await failing('kms:ReEncrypt', () =>
      this.#kms.send(
        new ReEncryptCommand({
          CiphertextBlob: key.wrappedKey,
          SourceKeyId: key.kmsKeyArn,
          SourceEncryptionContext: context,
          DestinationKeyId: arn,
          DestinationEncryptionContext: context,
        }),
      ),
    );
    if (answer.CiphertextBlob === undefined || answer.KeyId !== arn)
      throw notDone('kms:ReEncrypt', 'another key answered');
    return Buffer.from(answer.CiphertextBlob);
  }

  /** ARNs of the KMS keys with which Secrets Manager opens this version. Any one of them is enough. */
  async #kmsKeysOf({ secretName, secretVersionId }: WrappedKey): Promise<string[]> {
    const list = { SecretId: secretName, IncludeDeprecated: true };
    for await (const { Versions = [] } of paginateListSecretVersionIds({ client: this.#secrets }, list)) {
      const found = Versions.find(({ VersionId }) => VersionId === secretVersionId);
      if (found !== undefined) return found.KmsKeyIds ?? [];
    }
    return [];
  }

  [Symbol.dispose](): void {
    this.#kms.destroy();
    this.#secrets.destroy();
  }
}

async function failing<T>(call: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { name, cause } = describeAwsFailure(call, error);
    throw notDone(call, name, cause);
  }
}

function notDone(call: string, why: string, cause?: Error): ServiceError {
  const reason = `${call} ${why}`;
  return new ServiceError('vault.unavailable', 'The data key stays under the KMS key that it is under.', {
    extra: { reason },
    ...(cause && { cause }),
  });
}
