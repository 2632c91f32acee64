import type { Clock } from '../domain/clock.ts';
import { accessKeyHint } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { AwsFailure } from './aws-failure.ts';
import type { IamAccessKey, KeyOwner } from './iam-keys.ts';
import { refusalOf } from './identity-refusal.ts';

/** Everything that an exchange of keys needs, in one statement: asking for one action at a time would take four attempts. */
const ACTIONS = ['iam:ListAccessKeys', 'iam:CreateAccessKey', 'iam:UpdateAccessKey', 'iam:DeleteAccessKey'];

const DAY_MS = 86_400_000;

/** What IAM's refusal of a call means to the owner of the key. AWS's own words are not repeated. */
export function iamRefusal(action: string, failure: AwsFailure, owner: KeyOwner): ServiceError {
  if (failure.name === 'AccessDenied' || failure.name === 'AccessDeniedException')
    return notPermitted(action, failure, owner);
  return refusalOf(failure, 'access-key');
}

function notPermitted(action: string, failure: AwsFailure, { principalArn }: KeyOwner): ServiceError {
  // The policy variable does not match users with a path; where the ARN is known, it does.
  const resource = principalArn ?? 'arn:aws:iam::*:user/${aws:username}';
  const statement = JSON.stringify({ Effect: 'Allow', Action: ACTIONS, Resource: resource });
  return new ServiceError(
    'credential.refused_by_aws',
    `The IAM user of this key may not ${action} on ${resource}. Add this statement to the user's policy, and look for a permissions boundary ` +
      `or service control policy that denies it: ${statement}`,
    { cause: failure.cause, extra: { refusal: 'not-permitted', action, resource, statement } },
  );
}

/** @param keys undefined when they could not be listed. */
export function keyLimit(
  failure: AwsFailure,
  keys: readonly IamAccessKey[] | undefined,
  clock: Clock,
): ServiceError {
  const shown =
    keys?.map(({ accessKeyId, state, createdAt }) => {
      const days = Math.max(0, Math.floor((clock.now() - createdAt.getTime()) / DAY_MS));
      return `${accessKeyHint(accessKeyId)} (${state}, ${String(days)} days old)`;
    }) ?? [];
  const which = shown.length > 0 ? `: ${shown.join(' and ')}` : '';
  return new ServiceError(
    'credential.refused_by_aws',
    `The IAM user has as many access keys as AWS allows${which}. Delete the one that is not in use, then try again.`,
    { cause: failure.cause, extra: { refusal: 'key-limit', keys: shown.join('; ') } },
  );
}

/** @param mayHaveHappened the request was sent, and what it does cannot be taken back by sending it again. */
export function iamUnanswered(failure: AwsFailure, mayHaveHappened: boolean): ServiceError {
  if (failure.kind === 'not-sent')
    return new ServiceError('internal', 'The call of IAM could not be sent.', { cause: failure.cause });
  const throttled = failure.kind === 'busy' && (failure.status === undefined || failure.status < 500);
  if (throttled)
    return new ServiceError(
      'upstream.throttled',
      'IAM throttles the calls of this account. Try again shortly.',
      {
        cause: failure.cause,
        retryAfterSeconds: 5,
      },
    );
  const orphan = mayHaveHappened
    ? ' It may have made a key whose secret nobody has: look for a new key in IAM and delete it.'
    : '';
  return new ServiceError('upstream.unreachable', `IAM did not answer. Try again shortly.${orphan}`, {
    cause: failure.cause,
    retryAfterSeconds: 5,
    ...(mayHaveHappened && { extra: { mayHaveHappened } }),
  });
}
