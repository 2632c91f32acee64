import type { CredentialState } from '../domain/credential.ts';
import type { ErrorCode } from '../domain/error-catalogue.ts';
import { ServiceError } from '../domain/errors.ts';

const NOT_ACTIVE: Record<Exclude<CredentialState, 'active'>, string> = {
  pending: 'This credential waits for its proof. Activate it first.',
  unsafe:
    'This credential failed its proof and is not used. POST /credentials/:cid/activate says what to mend, and proves it again.',
  frozen: 'This credential is frozen. Thaw it, or name another one.',
};

const ENDS_USE: ReadonlySet<ErrorCode> = new Set([
  'credential.unsafe',
  'credential.refused_by_aws',
  'credential.unreadable',
  'credential.not_found',
  'credential.not_usable',
  'merchant.not_active',
]);

/**
 * Whether a failure is somebody's decision against a credential: of AWS, the vault or the database. What is in memory of it then signs no
 * more. Silence, throttling and limits decide nothing, and calls go on with what is there: who tests in an outage must not make it theirs.
 */
export function endsUse(error: unknown): boolean {
  return error instanceof ServiceError && ENDS_USE.has(error.code);
}

/** @throws ServiceError credential.not_usable */
export function assertActive(state: CredentialState): void {
  if (state !== 'active') throw new ServiceError('credential.not_usable', NOT_ACTIVE[state]);
}

/** For a role other than the one that was proven. */
export function otherRolePinned(): ServiceError {
  return new ServiceError(
    'credential.not_usable',
    'This credential was activated for another role, which cannot be changed any more. Store a new credential for this role, and delete this one.',
  );
}

/** For a proof that would thaw what somebody stopped. */
export function stillFrozen(): ServiceError {
  return new ServiceError('credential.not_usable', 'This credential is frozen. Thaw it first.');
}

/** For a proof that passed before another one failed, or so it may be. */
export function foundUnsafeMeanwhile(): ServiceError {
  return new ServiceError(
    'credential.not_usable',
    'While this role was proven, another proof found it unsafe. Activate the credential again: that tells which of the two holds.',
  );
}

/** The same for what does not exist, was deleted, or is another merchant's. */
export function notFound(): ServiceError {
  return new ServiceError(
    'credential.not_found',
    'This merchant has no such credential. GET /credentials lists those it has.',
  );
}
