import type { ErrorCode } from './error-catalogue.ts';

export interface ServiceErrorOptions {
  /** Private: goes to the log after redaction, never to the caller. */
  cause?: unknown;
  /** Sent as `Retry-After`, in seconds. */
  retryAfterSeconds?: number;
  /** What `WWW-Authenticate` says instead of what the code has: `bare`, without an error; or that the request itself was wrong (RFC 6750 3.1). */
  challenge?: 'bare' | 'invalid_request';
  /** The limit that was reached, for the headers RateLimit and RateLimit-Policy. */
  limit?: { name: string; max: number; used: number; resetSeconds?: number | null | undefined };
  /** What was wrong, field by field; safe to show: never echoes the values sent. */
  problems?: readonly string[];
  /** Extra public members of the problem document, e.g. `{ scope: 'usage:read' }`. */
  extra?: Readonly<Record<string, string | number | boolean | object>>;
}

/**
 * The one error that rooms throw: a catalogue code, a public sentence that says what is wrong and how to fix it,
 * and a private cause. `http/` turns it into a status; a room never knows statuses.
 */
export class ServiceError extends Error {
  override readonly name = 'ServiceError';
  readonly code: ErrorCode;
  readonly detail: string;
  readonly options: ServiceErrorOptions;

  constructor(code: ErrorCode, detail: string, options: ServiceErrorOptions = {}) {
    super(`${code}: ${detail}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.detail = detail;
    this.options = options;
  }
}

/**
 * A database that is away, in words for where it is certain that nothing came of the request: it ended before anything could. Every other
 * error as it is. @param what was not done, as the beginning of a sentence
 */
export function nothingDone(error: unknown, what = 'Nothing was done'): unknown {
  if (!(error instanceof ServiceError) || error.code !== 'ledger.unavailable') return error;
  return new ServiceError(
    error.code,
    `The database does not answer. ${what}; try again shortly.`,
    error.options,
  );
}
