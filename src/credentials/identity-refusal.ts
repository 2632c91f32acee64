import type { AwsCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { AwsFailure } from './aws-failure.ts';

type Refusal = 'expired' | 'unknown-key' | 'bad-signature' | 'region-disabled' | 'denied' | 'root';

/** AWS's names for a refusal: of the Query services (STS) and of the JSON services (Bedrock). */
const REFUSALS: Readonly<Record<string, Refusal>> = {
  ExpiredToken: 'expired',
  ExpiredTokenException: 'expired',
  TokenRefreshRequired: 'expired',
  InvalidClientTokenId: 'unknown-key',
  UnrecognizedClientException: 'unknown-key',
  InvalidAccessKeyId: 'unknown-key',
  InvalidToken: 'unknown-key',
  SignatureDoesNotMatch: 'bad-signature',
  InvalidSignatureException: 'bad-signature',
  IncompleteSignature: 'bad-signature',
  IncompleteSignatureException: 'bad-signature',
  RegionDisabledException: 'region-disabled',
  OptInRequired: 'region-disabled',
};

/** What is wrong and what to do, for the person who owns the credential. */
const ACCESS_KEY_ADVICE: Readonly<Record<Refusal, string>> = {
  expired:
    'AWS says that these temporary keys have expired. Fetch new ones and send them with their session token.',
  'unknown-key':
    'AWS does not know this access key id: it was deleted or deactivated, belongs to another partition, or the session token is not its own. ' +
    'Check the key in IAM, or create a new one.',
  'bad-signature':
    'AWS knows the access key id, but the secret access key is not the one that belongs to it. Copy the secret again, or create a new key.',
  'region-disabled':
    'The AWS account has not enabled this region. Enable it in the account settings, or choose another region.',
  denied:
    'AWS denies this principal the use of its own identity. Look for a service control policy or permissions boundary that denies it.',
  root: "These are keys of the account's root user, which can do everything and cannot be limited. Delete them, and use keys of an IAM user or role that may only call Bedrock.",
};

const API_KEY_ADVICE: Readonly<Record<Refusal, string>> = {
  ...ACCESS_KEY_ADVICE,
  expired: 'AWS says that this Bedrock API key has expired. Create a new one.',
  'unknown-key': 'AWS does not accept this Bedrock API key. Copy it again, or create a new one.',
  'bad-signature': 'AWS does not accept this Bedrock API key. Copy it again, or create a new one.',
  denied:
    'AWS does not accept this Bedrock API key, or the key may not list models. Check that it was copied whole, has not expired or been deactivated, ' +
    'and that its user is allowed bedrock:CallWithBearerToken and bedrock:ListFoundationModels.',
};

/** @returns credential.refused_by_aws with the kind of refusal, as `extra.refusal`, and its remedy. */
export function refusalOf(failure: AwsFailure, kind: AwsCredential['kind']): ServiceError {
  const refusal = REFUSALS[failure.name] ?? 'denied';
  const advice = kind === 'access-key' ? ACCESS_KEY_ADVICE : API_KEY_ADVICE;
  return new ServiceError('credential.refused_by_aws', advice[refusal], {
    cause: failure.cause,
    extra: { refusal },
  });
}

/** @throws ServiceError credential.refused_by_aws for the root user of an account. */
export function refuseRoot(arn: string): void {
  if (!/^arn:aws[a-z-]*:iam::\d{12}:root$/.test(arn)) return;
  throw new ServiceError('credential.refused_by_aws', ACCESS_KEY_ADVICE.root, { extra: { refusal: 'root' } });
}
