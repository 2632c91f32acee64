import { ServiceError } from '../domain/errors.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { AwsFailure } from './aws-failure.ts';
import { VaultRefusal, VaultSilence } from './secret-vault.ts';

/** What a refusal or a silence of KMS and Secrets Manager means for a stored credential. */
export function notStored(call: string, error: unknown): ServiceError {
  return notNow(
    describeAwsFailure(call, error),
    'The vault cannot take a credential now. Nothing usable was stored; try again.',
  );
}

/** Silence and refusals are told apart: only silence lets what was opened before serve on. */
export function notOpened(call: string, error: unknown): ServiceError {
  const failure = describeAwsFailure(call, error);
  const { kind, name, cause } = failure;
  if (kind === 'refused' && !OWN_IDENTITY.has(name))
    return new VaultRefusal(KEY_REFUSED.has(`${call} ${name}`) ? 'key' : 'credential', cause);
  const detail = 'The vault does not answer. Nothing was sent to Bedrock; try again shortly.';
  const silent = kind === 'busy' || kind === 'unreachable';
  return silent ? new VaultSilence(detail, { cause }) : notNow(failure, detail);
}

/**
 * Of KMS: it is the key that cannot be used, whatever was to be unwrapped. It ends what is open under every key, on purpose: whoever shuts the
 * service out is obeyed at once, and what is under a key that works is opened anew.
 */
const KEY_REFUSED: ReadonlySet<string> = new Set(
  ['AccessDeniedException', 'DisabledException', 'KMSInvalidStateException', 'NotFoundException'].map(
    (name) => `kms:Decrypt ${name}`,
  ),
);

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

/** The secret is not there any more, or on its way out. */
export function isGone({ name }: AwsFailure): boolean {
  return name === 'ResourceNotFoundException' || name === 'InvalidRequestException';
}

/**
 * Both at once; a data key that arrives after the other call failed is wiped, not left. A refusal of one counts more than silence of the other.
 */
export async function both(unwrapping: Promise<Buffer>, reading: Promise<Buffer>): Promise<[Buffer, Buffer]> {
  const [dataKey, envelope] = await Promise.allSettled([unwrapping, reading]);
  if (dataKey.status === 'fulfilled' && envelope.status === 'fulfilled')
    return [dataKey.value, envelope.value];
  if (dataKey.status === 'fulfilled') dataKey.value.fill(0);
  const failures = [dataKey, envelope].flatMap((half): unknown[] =>
    half.status === 'rejected' ? [half.reason] : [],
  );
  throw failures.find((failure) => failure instanceof VaultRefusal) ?? failures[0];
}
