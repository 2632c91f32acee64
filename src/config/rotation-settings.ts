import { integer, setting } from './setting.ts';

/** How stored credentials change under running calls (docs/operations.md, Rotation). */
export const ROTATION_SETTINGS = {
  rotationOverlapMs: setting(
    'ROTATION_OVERLAP_MS',
    'Milliseconds. How long the version before may still sign calls after a rotation, and be gone back to. Not less than what replicas remember.',
    integer(0, 86_400_000),
    '60000',
  ),
  rotationMinIntervalMs: setting(
    'ROTATION_MIN_INTERVAL_MS',
    'Milliseconds. Between two rotations of one credential. Secrets Manager keeps 100 versions a day of one secret; the default writes at most 96.',
    integer(0, 86_400_000),
    '900000',
  ),
  rotationKeyGraceMs: setting(
    'ROTATION_KEY_GRACE_MS',
    'Milliseconds. How long a key that we made or replaced at IAM stays deactivated before it is deleted.',
    integer(0, 2_592_000_000),
    '86400000',
  ),
} as const;
