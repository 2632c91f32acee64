import { ServiceError } from '../domain/errors.ts';
import type { CallId } from '../domain/ids.ts';
import type { HoldAnswer, LimitRefusal, StaticVerdict } from './call-intent.ts';

/** The merchant changed since the request was checked: check it again with what holds now. */
export class StaleMerchant extends Error {}

/** A call with this Idempotency-Key was made before: whether its answer can be given is for the gateway to say. */
export class MadeBefore extends Error {
  readonly callId: CallId;

  constructor(callId: CallId) {
    super('a call with this key was made before');
    this.callId = callId;
  }
}

/** A limit is reached, with its numbers as they were. */
export class LimitReached extends ServiceError {
  readonly refusal: LimitRefusal;

  constructor(refusal: LimitRefusal, ...parts: ConstructorParameters<typeof ServiceError>) {
    super(...parts);
    this.refusal = refusal;
  }
}

/** Limits that are free again within a minute; the others are budgets, which waiting does not refill soon. */
const RATES: ReadonlySet<string> = new Set(['requestsPerMinute', 'tokensPerMinute', 'callsInFlight']);
/** Nothing says when a running call ends. */
const IN_FLIGHT_RETRY_SECONDS = 1;

/** What a caller is told when a call was not admitted. */
export function refusalOf(answer: Exclude<HoldAnswer, { verdict: 'admitted' }>): Error {
  switch (answer.verdict) {
    case 'stale':
      return new StaleMerchant();
    case 'limit':
      return limitReached(answer.limit);
    case 'replay':
      return new MadeBefore(answer.id);
    default:
      return new ServiceError(...SENTENCES[answer.verdict]);
  }
}

function limitReached(limit: LimitRefusal): LimitReached {
  const { name, scope, max, used, wanted } = limit;
  const rate = RATES.has(name);
  const retryAfterSeconds = rate ? (limit.resetSeconds ?? IN_FLIGHT_RETRY_SECONDS) : limit.resetSeconds;
  const left = Math.max(0, max - used);
  const reset = limit.resetsAt === null ? '' : ` It resets at ${limit.resetsAt}.`;
  return new LimitReached(
    limit,
    rate ? 'limit.rate_exceeded' : 'limit.budget_exceeded',
    `The limit ${name} of this ${OF[scope]} is reached: ${String(left)} of ${String(max)} left, and this call can need ${String(wanted)}.${reset}` +
      (wanted > max ? ' It would never fit: ask for fewer tokens.' : ''),
    {
      ...(typeof retryAfterSeconds === 'number' && { retryAfterSeconds }),
      limit,
      extra: {
        limit: name,
        scope,
        max,
        used,
        available: left,
        ...(limit.resetsAt !== null && { resetsAt: limit.resetsAt }),
      },
    },
  );
}

const OF = { merchant: 'merchant', 'api-key': 'API key', 'end-user': 'end user' } as const;

const SENTENCES: Record<Exclude<StaticVerdict, 'stale'>, ConstructorParameters<typeof ServiceError>> = {
  api_key: ['auth.invalid_token', 'This API key was revoked or has expired. Use another one.'],
  credential: [
    'credential.not_usable',
    'This credential was deleted or replaced a moment ago. Name one that is active.',
  ],
  source: [
    'auth.source_not_allowed',
    'This merchant may not use this credential source. An operator can allow it.',
  ],
  merchant: ['merchant.not_active', 'This merchant is suspended or closed. An operator can say why.'],
  region: [
    'region.not_allowed',
    'The plan of this merchant does not include this region. GET /limits lists those it does.',
  ],
  model: [
    'limit.model_not_allowed',
    'The plan of this merchant does not include this model. GET /limits lists those it does.',
  ],
  max_tokens: [
    'limit.max_tokens',
    'This call asks for more output tokens than the plan of this merchant allows at once. GET /limits tells maxTokens.',
  ],
  unpriced: [
    'limit.unpriced',
    'This model has no price, so a limit on money cannot be kept with it. An operator can import a price.',
  ],
  key_reused: [
    'idempotency.key_reused',
    'This Idempotency-Key was used with another body. Use a new key for a new call.',
  ],
};
