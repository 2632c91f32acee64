import { z } from 'zod';
import { nowSeconds } from './secret.ts';
import { amzJson } from '../wire/answer.ts';
import { parseBody } from '../wire/body.ts';
import { AwsError } from '../wire/errors.ts';
import type { StoredSecret } from './secret.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

const DAY_SECONDS = 86_400;
const RECOVERY_DAYS_DEFAULT = 30;
const PAGE_DEFAULT = 100;

export const tagsShape = z.array(z.looseObject({ Key: z.string(), Value: z.string() }));

const idShape = z.looseObject({ SecretId: z.string() });
const deleteShape = z.looseObject({
  SecretId: z.string(),
  RecoveryWindowInDays: z.int().min(7).max(30).optional(),
  ForceDeleteWithoutRecovery: z.boolean().optional(),
});
const tagShape = z.looseObject({ SecretId: z.string(), Tags: tagsShape });
const listVersionsShape = z.looseObject({ SecretId: z.string(), IncludeDeprecated: z.boolean().optional() });
const listShape = z.looseObject({
  Filters: z.array(z.looseObject({ Key: z.string(), Values: z.array(z.string()) })).optional(),
  MaxResults: z.int().min(1).max(100).optional(),
  NextToken: z.string().optional(),
  IncludePlannedDeletion: z.boolean().optional(),
});

export function deleteSecret({ request, signer }: Call, { secrets }: World): Answer {
  const body = parseBody(deleteShape, request.body);
  const force = body.ForceDeleteWithoutRecovery === true;
  if (force && body.RecoveryWindowInDays !== undefined) {
    throw new AwsError(
      'InvalidParameterException',
      "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.",
    );
  }
  const secret = force ? secrets.openEvenDeleted(body.SecretId, signer) : secrets.open(body.SecretId, signer);
  if (force) {
    secrets.remove(secret);
    return amzJson({ ARN: secret.arn, Name: secret.name, DeletionDate: nowSeconds() });
  }
  secret.deletedAt = nowSeconds() + (body.RecoveryWindowInDays ?? RECOVERY_DAYS_DEFAULT) * DAY_SECONDS;
  return amzJson({ ARN: secret.arn, Name: secret.name, DeletionDate: secret.deletedAt });
}

export function restoreSecret({ request, signer }: Call, { secrets }: World): Answer {
  const secret = secrets.openEvenDeleted(parseBody(idShape, request.body).SecretId, signer);
  secret.deletedAt = undefined;
  return amzJson({ ARN: secret.arn, Name: secret.name });
}

export function tagResource({ request, signer }: Call, { secrets }: World): Answer {
  const body = parseBody(tagShape, request.body);
  const secret = secrets.open(body.SecretId, signer);
  for (const { Key, Value } of body.Tags) secret.tags.set(Key, Value);
  return amzJson({});
}

export function describeSecret({ request, signer }: Call, { secrets }: World): Answer {
  const secret = secrets.openEvenDeleted(parseBody(idShape, request.body).SecretId, signer);
  const stages = [...secret.versions.values()]
    .filter((v) => v.stages.size > 0)
    .map((v) => [v.versionId, [...v.stages]] as const);
  return amzJson({ ...summary(secret), VersionIdsToStages: Object.fromEntries(stages) });
}

export function listSecretVersionIds({ request, signer }: Call, { secrets }: World): Answer {
  const body = parseBody(listVersionsShape, request.body);
  const secret = secrets.openEvenDeleted(body.SecretId, signer);
  const versions = [...secret.versions.values()].filter(
    (v) => v.stages.size > 0 || body.IncludeDeprecated === true,
  );
  return amzJson({
    ARN: secret.arn,
    Name: secret.name,
    Versions: versions.map((v) => ({
      VersionId: v.versionId,
      VersionStages: [...v.stages],
      KmsKeyIds: [...v.kmsKeyIds],
      CreatedDate: v.createdAt,
    })),
  });
}

export function listSecrets({ request, signer }: Call, { secrets }: World): Answer {
  const body = parseBody(listShape, request.body);
  const found = secrets
    .at(signer)
    .filter((s) => s.deletedAt === undefined || body.IncludePlannedDeletion === true)
    .filter((s) =>
      (body.Filters ?? []).every(({ Key, Values }) => Values.some((value) => passes(s, Key, value))),
    );
  const start = Number(body.NextToken ?? 0);
  const end = start + (body.MaxResults ?? PAGE_DEFAULT);
  return amzJson({
    SecretList: found.slice(start, end).map(summary),
    ...(end < found.length && { NextToken: String(end) }),
  });
}

/** A filter value matches from the beginning of a word, here simply from the beginning. */
function passes(secret: StoredSecret, key: string, value: string): boolean {
  const fields: Readonly<Record<string, readonly string[]>> = {
    name: [secret.name],
    description: [secret.description ?? ''],
    'tag-key': [...secret.tags.keys()],
    'tag-value': [...secret.tags.values()],
    'primary-region': [secret.region],
  };
  return (fields[key] ?? Object.values(fields).flat()).some((field) => field.startsWith(value));
}

function summary(secret: StoredSecret): object {
  return {
    ARN: secret.arn,
    Name: secret.name,
    Description: secret.description,
    KmsKeyId: secret.kmsKeyId,
    CreatedDate: secret.createdAt,
    LastChangedDate: secret.changedAt,
    DeletedDate: secret.deletedAt,
    Tags: [...secret.tags].map(([Key, Value]) => ({ Key, Value })),
  };
}
