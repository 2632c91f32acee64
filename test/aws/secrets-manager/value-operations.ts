import { z } from 'zod';
import {
  AWS_KEY,
  CURRENT,
  addVersion,
  labelledByAws,
  moveStage,
  sameValue,
  versionWithStage,
} from './secret.ts';
import { authorize } from '../identity/authorize.ts';
import { tagsShape } from './lifecycle-operations.ts';
import { amzJson } from '../wire/answer.ts';
import { parseBody } from '../wire/body.ts';
import { AwsError } from '../wire/errors.ts';
import type { SecretVersion, StoredSecret } from './secret.ts';
import type { Answer } from '../wire/answer.ts';
import type { Signer } from '../identity/key-ring.ts';
import type { Call, World } from '../call.ts';

/** Limit of Secrets Manager. */
const VALUE_LENGTH_MAX = 65_536;

const value = {
  ClientRequestToken: z.string().min(32).max(64),
  SecretString: z.string().min(1).max(VALUE_LENGTH_MAX).optional(),
  SecretBinary: z.base64().optional(),
};
const createShape = z.looseObject({
  ...value,
  Name: z.string().regex(/^[A-Za-z0-9/_+=.@!-]{1,512}$/),
  Description: z.string().optional(),
  KmsKeyId: z.string().optional(),
  Tags: tagsShape.optional(),
});
const putShape = z.looseObject({
  ...value,
  SecretId: z.string(),
  VersionStages: z.array(z.string()).min(1).optional(),
});
const getShape = z.looseObject({
  SecretId: z.string(),
  VersionId: z.string().optional(),
  VersionStage: z.string().optional(),
});
const updateShape = z.looseObject({ SecretId: z.string(), KmsKeyId: z.string().optional() });
const moveShape = z.looseObject({
  SecretId: z.string(),
  VersionStage: z.string(),
  MoveToVersionId: z.string().optional(),
  RemoveFromVersionId: z.string().optional(),
});

type Value = Pick<SecretVersion, 'versionId' | 'secretString' | 'secretBinary'>;

export function createSecret({ request, signer }: Call, { secrets, kms }: World): Answer {
  const body = parseBody(createShape, request.body);
  const wanted = {
    versionId: body.ClientRequestToken,
    secretString: body.SecretString,
    secretBinary: body.SecretBinary,
  };
  const existing = secrets.find(body.Name, signer);
  if (existing) return createdBefore(existing, wanted);
  if (body.KmsKeyId !== undefined)
    checkKey(() => kms.find(body.KmsKeyId ?? '', signer).state === 'Enabled', 'Encryption');
  const secret = secrets.create(body.Name, signer);
  secret.description = body.Description;
  secret.kmsKeyId = body.KmsKeyId;
  for (const { Key, Value } of body.Tags ?? []) secret.tags.set(Key, Value);
  const empty = body.SecretString === undefined && body.SecretBinary === undefined;
  const versionId = empty ? undefined : addVersion(secret, wanted, [CURRENT]).versionId;
  return amzJson({ ARN: secret.arn, Name: secret.name, ...(versionId && { VersionId: versionId }) });
}

/** A retry of the same creation is answered like the first; anything else under the name is refused. */
function createdBefore(secret: StoredSecret, wanted: Value): Answer {
  if (secret.deletedAt !== undefined) {
    throw new AwsError(
      'InvalidRequestException',
      "You can't create this secret because a secret with this name is already scheduled for deletion.",
    );
  }
  const version = secret.versions.get(wanted.versionId);
  if (!version || !sameValue(version, wanted)) {
    throw new AwsError(
      'ResourceExistsException',
      `The operation failed because the secret ${secret.name} already exists.`,
    );
  }
  return amzJson({ ARN: secret.arn, Name: secret.name, VersionId: version.versionId });
}

export function putSecretValue({ request, signer }: Call, { secrets }: World): Answer {
  const body = parseBody(putShape, request.body);
  const secret = secrets.open(body.SecretId, signer);
  if ((body.SecretString === undefined) === (body.SecretBinary === undefined)) {
    throw new AwsError('InvalidRequestException', 'You must provide either SecretString or SecretBinary.');
  }
  const wanted = {
    versionId: body.ClientRequestToken,
    secretString: body.SecretString,
    secretBinary: body.SecretBinary,
  };
  const version = addVersion(secret, wanted, body.VersionStages ?? [CURRENT]);
  return amzJson({
    ARN: secret.arn,
    Name: secret.name,
    VersionId: version.versionId,
    VersionStages: [...version.stages],
  });
}

export function getSecretValue({ request, signer }: Call, { secrets, kms }: World): Answer {
  const { SecretId, VersionId, VersionStage } = parseBody(getShape, request.body);
  const secret = secrets.open(SecretId, signer);
  const version = chosenVersion(secret, VersionId, VersionStage);
  if (!version.kmsKeyIds.has(AWS_KEY))
    checkKey(
      () => [...version.kmsKeyIds].some((id) => kms.find(id, signer).state === 'Enabled'),
      'Decryption',
    );
  return amzJson({
    ARN: secret.arn,
    Name: secret.name,
    VersionId: version.versionId,
    SecretString: version.secretString,
    SecretBinary: version.secretBinary,
    VersionStages: [...version.stages],
    CreatedDate: version.createdAt,
  });
}

/**
 * Of what AWS can change here: the KMS key. It reads under the old one and writes under the new one; who may not encrypt with the new one is
 * answered all the same, and nothing is encrypted anew.
 */
export function updateSecret({ request, signer }: Call, { secrets, kms }: World): Answer {
  const body = parseBody(updateShape, request.body);
  const secret = secrets.open(body.SecretId, signer);
  const { KmsKeyId } = body;
  if (KmsKeyId !== undefined) {
    if (secret.kmsKeyId !== undefined)
      checkKey(() => kms.find(secret.kmsKeyId ?? '', signer).state === 'Enabled', 'Decryption');
    checkKey(() => kms.find(KmsKeyId, signer).state === 'Enabled', 'Encryption');
    secret.kmsKeyId = KmsKeyId;
    if (mayEncrypt(signer)) for (const { kmsKeyIds } of labelledByAws(secret)) kmsKeyIds.add(KmsKeyId);
  }
  return amzJson({ ARN: secret.arn, Name: secret.name });
}

function mayEncrypt(signer: Signer): boolean {
  try {
    authorize(signer, 'kms', 'Encrypt', []);
    return true;
  } catch {
    return false;
  }
}

function chosenVersion(
  secret: StoredSecret,
  versionId: string | undefined,
  stage: string | undefined,
): SecretVersion {
  if (versionId === undefined) {
    const wanted = stage ?? CURRENT;
    return versionWithStage(secret, wanted) ?? missing(`staging label: ${wanted}`);
  }
  const version = secret.versions.get(versionId) ?? missing(`VersionId: ${versionId}`);
  if (stage !== undefined && !version.stages.has(stage)) {
    throw new AwsError(
      'InvalidRequestException',
      'You provided a VersionStage that is not associated to the provided VersionId.',
    );
  }
  return version;
}

export function updateSecretVersionStage({ request, signer }: Call, { secrets }: World): Answer {
  const body = parseBody(moveShape, request.body);
  const secret = secrets.open(body.SecretId, signer);
  const holder = versionWithStage(secret, body.VersionStage);
  if (holder && body.RemoveFromVersionId !== holder.versionId && body.MoveToVersionId !== holder.versionId) {
    throw new AwsError(
      'InvalidParameterException',
      `The parameter RemoveFromVersionId can't be empty. Staging label ${body.VersionStage} is currently attached to version ${holder.versionId}, so you must explicitly reference that version in RemoveFromVersionId.`,
    );
  }
  if (body.MoveToVersionId !== undefined) {
    moveStage(
      secret,
      body.VersionStage,
      secret.versions.get(body.MoveToVersionId) ?? missing(`VersionId: ${body.MoveToVersionId}`),
    );
  } else if (body.VersionStage === CURRENT) {
    throw new AwsError(
      'InvalidParameterException',
      'You can only move staging label AWSCURRENT to a different secret version. It can’t be completely removed.',
    );
  } else {
    holder?.stages.delete(body.VersionStage);
  }
  return amzJson({ ARN: secret.arn, Name: secret.name });
}

function missing(what: string): never {
  throw new AwsError(
    'ResourceNotFoundException',
    `Secrets Manager can't find the specified secret value for ${what}`,
  );
}

/** Secrets Manager reports trouble with the secret's KMS key under names of its own. */
function checkKey(isEnabled: () => boolean, direction: 'Encryption' | 'Decryption'): void {
  let enabled: boolean;
  try {
    enabled = isEnabled();
  } catch {
    throw new AwsError('AccessDeniedException', 'Access to KMS is not allowed');
  }
  if (!enabled)
    throw new AwsError(
      `${direction}Failure`,
      "Secrets Manager can't use the KMS key of this secret: it is not enabled.",
    );
}
