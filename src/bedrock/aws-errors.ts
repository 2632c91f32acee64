import { ServiceError } from '../domain/errors.ts';
import type { Operation } from '../domain/usage.ts';
import { parseObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** What a refusal of AWS means. */
export interface AwsRefusal {
  status: number;
  /** The exception's name, e.g. ThrottlingException. */
  type: string;
  message: string;
  /** AWS refused the credential itself. */
  credentialBroken: boolean;
  /** `refused`: the model provably did not run. `unknown`: it may have, and been billed. */
  execution: 'refused' | 'unknown';
  awsRequestId: string | undefined;
  retryAfterSeconds: number | undefined;
}

/**
 * Exceptions that come before a model runs: signature, permission, validation, quota. All others count as unknown: a model that timed out, failed
 * midway or was cut by an internal error may have generated, and been billed for, tokens. ServiceUnavailable and ModelNotReady say that
 * there was no capacity to begin with. Source: error lists of InvokeModel and Converse in the API reference.
 */
const BEFORE_EXECUTION: ReadonlySet<string> = new Set([
  'AccessDeniedException',
  'ConflictException',
  'ExpiredTokenException',
  'IncompleteSignatureException',
  'IncompleteSignature',
  'InvalidSignatureException',
  'MissingAuthenticationTokenException',
  'ModelNotReadyException',
  'ResourceNotFoundException',
  'SerializationException',
  'ServiceQuotaExceededException',
  'ServiceUnavailableException',
  'ThrottlingException',
  'UnknownOperationException',
  'UnrecognizedClientException',
  'ValidationException',
]);
/** Statuses that say the same where AWS names no exception (its front door does that): refused at the door. */
const REFUSED_STATUSES: ReadonlySet<number> = new Set([400, 401, 403, 404, 405, 411, 413, 415, 429, 431]);
const BROKEN_CREDENTIAL: ReadonlySet<string> = new Set([
  'ExpiredTokenException',
  'InvalidSignatureException',
  'IncompleteSignatureException',
  'MissingAuthenticationTokenException',
  'UnrecognizedClientException',
]);
/** How Bedrock refuses one of its API keys: a 403 without an exception's name, or with the one of a denied action. */
const BAD_API_KEY = /^(Authentication failed|Bearer Token has expired)/;

export interface AwsErrorReply {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: Buffer;
}

/** Reads an error as SDKs do, and says what it means. */
export function classifyReply({ status, headers, body }: AwsErrorReply): AwsRefusal {
  const json = parseObject(body) ?? {};
  const type = exceptionName(headers, json);
  const message = (text(json['message']) ?? text(json['Message']) ?? '').slice(0, 2_000);
  const meaning = type === undefined ? meaningOfStatus(status) : meaningOfType(type);
  return {
    status,
    type: type ?? `Http${String(status)}`,
    message,
    ...meaning,
    credentialBroken: meaning.credentialBroken || (status === 403 && BAD_API_KEY.test(message)),
    awsRequestId: headers['x-amzn-requestid'],
    retryAfterSeconds: retryAfter(headers),
  };
}

/** From the header up to ':', else from `__type` or `code` after '#'. */
function exceptionName(headers: Readonly<Record<string, string>>, json: Json): string | undefined {
  const named = headers['x-amzn-errortype'] ?? text(json['__type']) ?? text(json['code']);
  return named?.split(':')[0]?.split('#').at(-1)?.trim().slice(0, 128);
}

type Meaning = Pick<AwsRefusal, 'credentialBroken' | 'execution'>;

function meaningOfType(type: string): Meaning {
  const execution = BEFORE_EXECUTION.has(type) ? 'refused' : 'unknown';
  return { execution, credentialBroken: BROKEN_CREDENTIAL.has(type) };
}

function meaningOfStatus(status: number): Meaning {
  const execution = REFUSED_STATUSES.has(status) ? 'refused' : 'unknown';
  return { execution, credentialBroken: false };
}

/** The IAM action behind each operation; Converse has none of its own. Source: service authorization reference. */
const ACTIONS: Readonly<Record<Operation, string>> = {
  invoke: 'bedrock:InvokeModel',
  converse: 'bedrock:InvokeModel',
  'invoke-with-response-stream': 'bedrock:InvokeModelWithResponseStream',
  'converse-stream': 'bedrock:InvokeModelWithResponseStream',
  'count-tokens': 'bedrock:CountTokens',
};

/** A refusal of AWS for our own JSON routes: whose fault it is and what to do. AWS's words are passed on: they are about the merchant's own account. */
export function serviceErrorOf(refusal: AwsRefusal, operation: Operation): ServiceError {
  const { type, status, message, awsRequestId, retryAfterSeconds } = refusal;
  const said = message === '' ? type : `${type}: ${message}`;
  const extra = { awsType: type, awsStatus: status, ...(awsRequestId !== undefined && { awsRequestId }) };
  if (refusal.credentialBroken) {
    return new ServiceError(
      'credential.refused_by_aws',
      `AWS does not accept this credential (${said}). Test it with POST /credentials/:cid/test, or store a new one.`,
      { extra },
    );
  }
  if (type === 'ThrottlingException' || type === 'ModelNotReadyException' || status === 429) {
    return new ServiceError(
      'upstream.throttled',
      `AWS throttled the call in the merchant's account (${said}). Try again later, or ask AWS for a higher quota.`,
      { extra, retryAfterSeconds: retryAfterSeconds ?? 1 },
    );
  }
  if (type === 'AccessDeniedException') {
    return new ServiceError(
      'upstream.error',
      `AWS denied the call (${said}). The credential needs the IAM action ${ACTIONS[operation]} on this model, and for an inference profile on every model behind it.`,
      { extra },
    );
  }
  return new ServiceError('upstream.error', `AWS answered with an error: ${said}`, { extra });
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** `retry-after` in seconds, or `x-amz-retry-after` in milliseconds. */
function retryAfter(headers: Readonly<Record<string, string>>): number | undefined {
  const seconds = headers['retry-after'];
  if (seconds !== undefined && /^\d{1,6}$/.test(seconds)) return Number(seconds);
  const milliseconds = headers['x-amz-retry-after'];
  return milliseconds !== undefined && /^\d{1,9}$/.test(milliseconds)
    ? Math.ceil(Number(milliseconds) / 1_000)
    : undefined;
}
