import type { ServiceError } from '../domain/errors.ts';

/**
 * How a call to AWS failed, without anything AWS wrote: its messages can hold the signed request.
 * - `unreachable`: no answer, or one that is not AWS's; it may have been carried out.
 * - `busy`: throttled or 5xx; worth another try.
 * - `refused`: AWS said no; it will say so again.
 * - `not-sent`: we stopped it ourselves: no identity of our own, or a host or signer that was not the one meant.
 */
export interface AwsFailure {
  kind: 'unreachable' | 'busy' | 'refused' | 'not-sent';
  /** AWS's name for it, e.g. `AccessDeniedException`, or the name of the network error. */
  name: string;
  status: number | undefined;
  /** Safe to keep as a private cause. */
  cause: Error;
}

const THROTTLES: ReadonlySet<string> = new Set([
  'ThrottlingException',
  'Throttling',
  'TooManyRequestsException',
  'RequestLimitExceeded',
  'LimitExceededException',
  'KeyUnavailableException',
  'DependencyTimeoutException',
]);

interface SdkError {
  name?: unknown;
  code?: unknown;
  $metadata?: { httpStatusCode?: unknown; requestId?: unknown };
}

/** @param call for the log, e.g. `kms:Decrypt`. */
export function describeAwsFailure(call: string, error: unknown): AwsFailure {
  const { name, code, $metadata } = (error ?? {}) as SdkError;
  const status = typeof $metadata?.httpStatusCode === 'number' ? $metadata.httpStatusCode : undefined;
  const names = status === undefined ? [code, name] : [name];
  const shownName = names.map(identifier).find((known) => known !== undefined) ?? 'Error';
  const kind = kindOf(identifier(name) ?? 'Error', status, $metadata !== undefined);
  const request = identifier($metadata?.requestId) ?? 'none';
  return {
    kind,
    name: shownName,
    status,
    cause: new Error(`${call}: ${shownName} (${kind}, status ${String(status)}, AWS request ${request})`),
  };
}

function kindOf(name: string, status: number | undefined, sent: boolean): AwsFailure['kind'] {
  if (!sent) return 'not-sent';
  if (THROTTLES.has(name) || status === 429 || (status !== undefined && status >= 500)) return 'busy';
  return status === undefined || status < 400 ? 'unreachable' : 'refused';
}

/** Names and ids only: whatever else a broken error carries is left out. */
function identifier(value: unknown): string | undefined {
  return typeof value === 'string' && /^[A-Za-z0-9_.:-]{1,100}$/.test(value) ? value : undefined;
}

/** AWS's name for what it refused, or our own code. */
export function reasonOf(error: ServiceError): string {
  const reason = error.options.extra?.['reason'];
  return typeof reason === 'string' ? reason : error.code;
}
