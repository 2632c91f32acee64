import type { CredentialId, MerchantId } from '../domain/ids.ts';

/**
 * How far a rotation came. `pending`: the new version waits for its test. `overlap`: it is current, and the one before may still sign.
 * `retired`: the one before is shredded. `rolled-back`: the new one is. `failed`: the new one never came into force.
 */
export const ROTATION_STATES = ['pending', 'overlap', 'retired', 'rolled-back', 'failed'] as const;
export type RotationState = (typeof ROTATION_STATES)[number];

/** `material`: the merchant handed the new key in. `iam`: it was made at IAM with the current one. */
export type RotationMode = 'material' | 'iam';

/**
 * What was done with a key at IAM. `left`: the credential is of another IAM user by now, so that the key, if there is one, stays as it is.
 * `none`: there is none, or none that we may do anything with.
 */
export type KeyState = 'deactivated' | 'deleted' | 'left' | 'none';

/** Names one rotation: a credential and the version it brings. */
export interface RotationName {
  merchantId: MerchantId;
  credentialId: CredentialId;
  version: number;
}

/** What a merchant may see of a rotation. */
export interface RotationRecord {
  version: number;
  replaces: number;
  state: RotationState;
  /** Why it failed: an error code, `interrupted` or `timed-out`. */
  reason: string | undefined;
  warnings: readonly string[];
  startedAt: Date;
  promotedAt: Date | undefined;
  /** Until then the version before may sign, and be gone back to. */
  overlapUntil: Date | undefined;
  endedAt: Date | undefined;
}

/** A rotation that was begun: where its new version is to go. */
export interface BegunRotation extends RotationName {
  replaces: number;
  secretName: string;
  secretVersionId: string;
  /** Of the version that it replaces. */
  kmsKeyArn: string;
}

/** What the database says to whoever wants to begin one. Seconds. */
export type BeginAnswer =
  | { verdict: 'begun'; rotation: BegunRotation }
  | { verdict: 'missing' }
  /** Another credential is of the same IAM user. */
  | { verdict: 'shared'; credentialId: CredentialId }
  | { verdict: 'in_progress'; state: RotationState; version: number; retryAfterSeconds: number }
  | { verdict: 'too_soon'; retryAfterSeconds: number };

/** One that a process took because it was due. */
export interface DueRotation extends RotationName {
  state: RotationState;
  mode: RotationMode;
  /** Of mode `iam`, when it is over: what was done at IAM with the key that is not needed any more. */
  keyState: KeyState | null;
  /** A deactivated key has had its grace. */
  keyDue: boolean;
  /** The state for which the labels in Secrets Manager were moved. */
  labelled: RotationState | null;
  overlapOver: boolean | null;
  /** It has been pending for longer than any test takes. */
  overdue: boolean;
}

/** Something that other processes may remember wrongly. */
export interface RotationChange extends RotationName {
  state: RotationState;
  /** The version that can never be opened again. */
  shredded: number | null;
}

/** Times, in milliseconds. */
export interface RotationRules {
  overlapMs: number;
  minIntervalMs: number;
  /** Between deactivating a key at IAM and deleting it. */
  keyGraceMs: number;
}
