import { ServiceError } from '../domain/errors.ts';
import type { AwsFailure } from './aws-failure.ts';

export type RoleRefusal =
  'role-denied' | 'role-tags' | 'session-policy' | 'region-disabled' | 'account-changed';

/** What is wrong and what to do, for the person who owns the role. */
const ADVICE: Readonly<Record<RoleRefusal, string>> = {
  'role-denied':
    'AWS does not let this service assume the role. AWS does not say which it is: the role does not exist (any more), or its trust policy does not name ' +
    'this service with the ExternalId of this credential, or its account forbids it. GET /credentials/:cid/policies has the trust policy that the role ' +
    'needs. Nothing else was used in its place; the next request asks AWS again. A change in IAM can take a minute.',
  'role-tags':
    'The role can be assumed, but not with session tags: its trust policy lacks the statement that allows sts:TagSession. ' +
    'GET /credentials/:cid/policies has it. The tags name merchant and credential, and nothing else.',
  'session-policy':
    'AWS cannot fit the tags and the policy of this session, packed, into its limit. Shorten the session tags that the account itself adds, ' +
    'or tell the operator. A session without its policy is never used.',
  'region-disabled':
    'AWS STS is not enabled in this region for the account of this service. Ask the operator to enable the region, or store the credential for another one.',
  'account-changed': 'The sessions of this role are of another AWS account than the role. It was not used.',
};

export function roleRefused(refusal: RoleRefusal, cause?: unknown): ServiceError {
  return new ServiceError('credential.refused_by_aws', ADVICE[refusal], { cause, extra: { refusal } });
}

export function isRoleDenied(error: unknown): boolean {
  return isRefusal(error, 'role-denied');
}

function isRefusal(error: unknown, refusal: RoleRefusal): boolean {
  return error instanceof ServiceError && error.options.extra?.['refusal'] === refusal;
}

export function isPolicyTooLarge({ name }: AwsFailure): boolean {
  return REFUSALS[name] === 'session-policy';
}

/** AWS's names for what it refuses of a role. */
const REFUSALS: Readonly<Record<string, RoleRefusal>> = {
  AccessDenied: 'role-denied',
  RegionDisabledException: 'region-disabled',
  PackedPolicyTooLarge: 'session-policy',
  PackedPolicyTooLargeException: 'session-policy',
};

/** AWS refused the service itself, so nothing was learned about the role. */
const OWN_IDENTITY: ReadonlySet<string> = new Set([
  'InvalidClientTokenId',
  'SignatureDoesNotMatch',
  'IncompleteSignature',
  'ExpiredToken',
  'ExpiredTokenException',
  'MissingAuthenticationToken',
  'InvalidAccessKeyId',
]);

/** What a failure of AssumeRole means to the caller. */
export function roleFailure(failure: AwsFailure): ServiceError {
  const { kind, name, cause } = failure;
  const refusal = kind === 'refused' ? REFUSALS[name] : undefined;
  if (refusal !== undefined) return roleRefused(refusal, cause);
  if (name === 'ValidationError')
    return new ServiceError(
      'request.invalid',
      'AWS takes this for no ARN of a role. Check it, letter by letter.',
      { cause },
    );
  if (kind === 'not-sent' || OWN_IDENTITY.has(name)) return ownIdentityFailure(failure);
  return (
    throttled(failure) ??
    unreachable(
      'AWS STS did not give out a session of the role. Nothing else was used in its place; try again shortly.',
      cause,
    )
  );
}

/** What it means that the service could not use its own identity, or ask who it is: no role was refused. */
export function ownIdentityFailure(failure: AwsFailure): ServiceError {
  return (
    throttled(failure) ??
    unreachable(
      'The service could not use its own AWS identity to assume the role. The operator finds the cause under this request id.',
      failure.cause,
    )
  );
}

function throttled({ kind, status, cause }: AwsFailure): ServiceError | undefined {
  if (kind !== 'busy' || (status ?? 500) >= 500) return undefined;
  return new ServiceError('upstream.throttled', 'AWS STS throttles this service. Try again shortly.', {
    cause,
    retryAfterSeconds: 5,
  });
}

function unreachable(detail: string, cause: unknown): ServiceError {
  return new ServiceError('upstream.unreachable', detail, { cause, retryAfterSeconds: 5 });
}
