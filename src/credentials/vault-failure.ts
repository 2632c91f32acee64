import { ServiceError } from '../domain/errors.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { AwsFailure } from './aws-failure.ts';

/** What a refusal or a silence of KMS and Secrets Manager means for a stored credential. */
export function notStored(call: string, error: unknown): ServiceError {
  return notNow(
    describeAwsFailure(call, error),
    'The vault cannot take a credential now. Nothing usable was stored; try again.',
  );
}

export function notOpened(call: string, error: unknown): ServiceError {
  const failure = describeAwsFailure(call, error);
  return failure.kind === 'refused' && !OWN_IDENTITY.has(failure.name)
    ? unreadable(failure.cause)
    : notNow(failure, 'The vault does not answer. Nothing was sent to Bedrock; try again shortly.');
}

/** AWS refused the service itself, so nothing was learned about the credential. */
const OWN_IDENTITY: ReadonlySet<string> = new Set([
  'UnrecognizedClientException',
  'InvalidSignatureException',
  'IncompleteSignatureException',
  'ExpiredTokenException',
  'MissingAuthenticationTokenException',
]);

export function notNow(failure: AwsFailure, detail: string): ServiceError {
  return new ServiceError('vault.unavailable', detail, { cause: failure.cause, retryAfterSeconds: 5 });
}

export function unreadable(cause: Error): ServiceError {
  return new ServiceError(
    'credential.unreadable',
    'The vault refuses to open this stored credential: it was removed, its encryption key is disabled, or it was altered. ' +
      'Nothing else was used in its place. Store the credential again and delete this one; the operator finds the cause under this request id.',
    { cause },
  );
}

/** The secret is not there any more, or on its way out. */
export function isGone({ name }: AwsFailure): boolean {
  return name === 'ResourceNotFoundException' || name === 'InvalidRequestException';
}
