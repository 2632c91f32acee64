import type { ErrorCode } from '../domain/error-catalogue.ts';

/** What a failure of AWS means to a caller. docs/errors.md has the same table; a test holds them equal. */
export interface AwsFailureRow {
  /** AWS's own; on our JSON routes `code` decides the status. */
  status: number;
  /** On our JSON routes. */
  code: ErrorCode;
  /**
   * Whether another try can help: `no` not before something is changed, `later` as long as Retry-After says, `once` after one that may have
   * run, so that trying again may pay twice.
   */
  retry: 'no' | 'later' | 'once';
  /** `no`: refused before a model ran; the ledger's row is void. `unknown`: the row says so until the merchant's logs tell. */
  charged: 'no' | 'unknown';
}

const REFUSED = { retry: 'no', charged: 'no' } as const;
const LATER = { retry: 'later', charged: 'no' } as const;
const MAY_HAVE_RUN = { retry: 'once', charged: 'unknown' } as const;
const BROKEN = { code: 'credential.refused_by_aws', ...REFUSED } as const;
const ERROR = { code: 'upstream.error', ...REFUSED } as const;

/**
 * Every exception of Bedrock that we know by name. What is not here counts as an error of which nobody knows whether a model ran: one that
 * timed out, failed midway or was cut by an internal error may have generated, and been billed for, tokens. ServiceUnavailable and
 * ModelNotReady say that there was no capacity to begin with. Source: error lists of InvokeModel and Converse, and common errors, in the
 * API reference.
 */
export const AWS_FAILURES = {
  AccessDeniedException: { status: 403, code: 'upstream.access_denied', ...REFUSED },
  ConflictException: { status: 400, ...ERROR },
  ExpiredTokenException: { status: 403, ...BROKEN },
  IncompleteSignature: { status: 400, ...BROKEN },
  IncompleteSignatureException: { status: 400, ...BROKEN },
  InternalServerException: { status: 500, code: 'upstream.error', ...MAY_HAVE_RUN },
  InvalidSignatureException: { status: 403, ...BROKEN },
  MissingAuthenticationTokenException: { status: 403, ...BROKEN },
  ModelErrorException: { status: 424, code: 'upstream.error', ...MAY_HAVE_RUN },
  ModelNotReadyException: { status: 429, code: 'upstream.throttled', ...LATER },
  ModelStreamErrorException: { status: 424, code: 'upstream.error', ...MAY_HAVE_RUN },
  ModelTimeoutException: { status: 408, code: 'upstream.error', ...MAY_HAVE_RUN },
  ResourceNotFoundException: { status: 404, ...ERROR },
  SerializationException: { status: 400, ...ERROR },
  ServiceQuotaExceededException: { status: 400, ...ERROR },
  ServiceUnavailableException: { status: 503, code: 'upstream.error', ...LATER },
  ThrottlingException: { status: 429, code: 'upstream.throttled', ...LATER },
  UnknownOperationException: { status: 404, ...ERROR },
  UnrecognizedClientException: { status: 403, ...BROKEN },
  ValidationException: { status: 400, ...ERROR },
} as const satisfies Record<string, AwsFailureRow>;

export function awsFailure(type: string): AwsFailureRow | undefined {
  return Object.hasOwn(AWS_FAILURES, type) ? AWS_FAILURES[type as keyof typeof AWS_FAILURES] : undefined;
}
