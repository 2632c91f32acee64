import { z } from 'zod';
import { integer, optional, region, setting, text } from './setting.ts';
import type { Setting } from './setting.ts';

/** Who signs checkpoints of the audit trail, how often, and where their copies go. */
export const AUDIT_SETTINGS = {
  auditKmsKeyId: optional(
    'AUDIT_KMS_KEY_ID',
    'KMS key (ARN, id or alias/...; ECC_NIST_P256, for signing) that signs checkpoints of the audit trail. Unset: there are none, and whoever owns the database can rewrite the trail unseen.',
    text,
  ),
  auditCheckpointEveryMs: setting(
    'AUDIT_CHECKPOINT_EVERY_MS',
    'Milliseconds. A checkpoint is made after this long, if anything happened; looked at every five seconds.',
    integer(0, 3_600_000),
    '60000',
  ),
  auditCheckpointEvents: setting(
    'AUDIT_CHECKPOINT_EVENTS',
    'Or after so many new events of all chains.',
    integer(1, 1_000_000_000),
    '1000',
  ),
  auditCheckpointBucket: optional(
    'AUDIT_CHECKPOINT_BUCKET',
    'S3 bucket with Object Lock, best of another account, that gets a copy of every checkpoint.',
    z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, 'must be the name of a bucket'),
  ),
  auditCheckpointBucketRegion: optional(
    'AUDIT_CHECKPOINT_BUCKET_REGION',
    'Region of that bucket, where it is not AWS_REGION.',
    region,
  ),
  auditCheckpointBucketOwner: optional(
    'AUDIT_CHECKPOINT_BUCKET_OWNER',
    'Account id of that bucket: a bucket of anybody else is refused.',
    z.string().regex(/^\d{12}$/, 'must be an account id of 12 digits'),
  ),
  auditCheckpointRetainDays: setting(
    'AUDIT_CHECKPOINT_RETAIN_DAYS',
    'Days. How long a copy is locked (compliance mode): nobody can shorten it afterwards.',
    integer(1, 36_500),
    '400',
  ),
} as const satisfies Record<string, Setting<unknown>>;
