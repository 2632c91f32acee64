import { AwsError } from '../wire/errors.ts';

/** One version of a secret's value. Binary values are kept in base64, as they travel. */
export interface SecretVersion {
  versionId: string;
  secretString?: string | undefined;
  secretBinary?: string | undefined;
  stages: Set<string>;
  /** Any of these opens it: what is encrypted anew under another key stays encrypted under the older one. */
  kmsKeyIds: Set<string>;
  createdAt: number;
}

export interface StoredSecret {
  arn: string;
  name: string;
  accountId: string;
  region: string;
  description?: string | undefined;
  kmsKeyId?: string | undefined;
  tags: Map<string, string>;
  versions: Map<string, SecretVersion>;
  createdAt: number;
  changedAt: number;
  /** Present: marked for deletion at this time. Epoch seconds, like every time on this wire. */
  deletedAt?: number | undefined;
}

export const CURRENT = 'AWSCURRENT';
const PREVIOUS = 'AWSPREVIOUS';
const LABELS_OF_AWS = [CURRENT, PREVIOUS, 'AWSPENDING'];
/** What AWS calls its own key. */
export const AWS_KEY = 'DefaultEncryptionKey';

export function nowSeconds(): number {
  return Date.now() / 1000;
}

export function versionWithStage(secret: StoredSecret, stage: string): SecretVersion | undefined {
  return [...secret.versions.values()].find((version) => version.stages.has(stage));
}

/** Puts a label on one version and off all others. When AWSCURRENT moves, the version it leaves becomes AWSPREVIOUS. */
export function moveStage(secret: StoredSecret, stage: string, to: SecretVersion): void {
  const from = versionWithStage(secret, stage);
  if (from === to) return;
  for (const version of secret.versions.values()) version.stages.delete(stage);
  to.stages.add(stage);
  if (stage === CURRENT && from) moveStage(secret, PREVIOUS, from);
}

/**
 * Adds a version under the client's token. The same token with the same content is the same version: a retry changes nothing.
 * @throws AwsError ResourceExistsException when the token already stands for other content
 */
export function addVersion(
  secret: StoredSecret,
  value: Pick<SecretVersion, 'versionId' | 'secretString' | 'secretBinary'>,
  stages: readonly string[],
): SecretVersion {
  const existing = secret.versions.get(value.versionId);
  if (existing) {
    if (sameValue(existing, value)) return existing;
    throw new AwsError(
      'ResourceExistsException',
      `You can't use ClientRequestToken ${value.versionId} because that value is already in use for a version of secret ${secret.arn}.`,
    );
  }
  const kmsKeyIds = new Set([secret.kmsKeyId ?? AWS_KEY]);
  const version: SecretVersion = { ...value, stages: new Set(), kmsKeyIds, createdAt: nowSeconds() };
  secret.versions.set(version.versionId, version);
  secret.changedAt = version.createdAt;
  for (const stage of stages) moveStage(secret, stage, version);
  // A secret's first version is always its current one.
  if (!versionWithStage(secret, CURRENT)) moveStage(secret, CURRENT, version);
  return version;
}

/** The versions that AWS encrypts anew when the secret gets another KMS key: those with a label of its own. */
export function labelledByAws(secret: StoredSecret): SecretVersion[] {
  return [...secret.versions.values()].filter(({ stages }) =>
    LABELS_OF_AWS.some((label) => stages.has(label)),
  );
}

export function sameValue(
  a: Pick<SecretVersion, 'secretString' | 'secretBinary'>,
  b: Pick<SecretVersion, 'secretString' | 'secretBinary'>,
): boolean {
  return a.secretString === b.secretString && a.secretBinary === b.secretBinary;
}
