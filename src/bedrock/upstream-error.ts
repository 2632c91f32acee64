import { ServiceError } from '../domain/errors.ts';
import type { ErrorCode } from '../domain/error-catalogue.ts';
import type { ServiceErrorOptions } from '../domain/errors.ts';

/** `no`: provably not one byte of the request left us, so the hold can be voided. `unknown`: AWS may have run it. */
export type Executed = 'no' | 'unknown';

/** A call to AWS that ended without a whole answer. `executed` decides between void and unknown in the ledger. */
export class UpstreamError extends ServiceError {
  readonly executed: Executed;

  constructor(code: ErrorCode, detail: string, executed: Executed, options: ServiceErrorOptions = {}) {
    super(code, detail, options);
    this.executed = executed;
  }
}

/** What an error met while reading a reply's body means: our own errors as they are, anything else is an answer cut off. */
export function bodyFailure(error: unknown): UpstreamError {
  if (error instanceof UpstreamError) return error;
  return new UpstreamError(
    'upstream.incomplete',
    'The connection to AWS broke during the answer.',
    'unknown',
    {
      cause: error,
    },
  );
}
