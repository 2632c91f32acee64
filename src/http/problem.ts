import type { ServerResponse } from 'node:http';
import { ERRORS } from '../domain/error-catalogue.ts';
import type { ErrorCode, ErrorRow } from '../domain/error-catalogue.ts';
import type { ServiceError } from '../domain/errors.ts';
import { cutResponse, hasLargeUnreadBody } from './protocol.ts';
import { rateLimitHeaders } from './rate-limit.ts';

/** RFC 9457. `code` is the stable name; `requestId` leads to the one log line of this request. */
export interface ProblemDocument {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: ErrorCode;
  requestId: string;
  problems?: readonly string[];
  [extra: string]: unknown;
}

const ERROR_TYPE_BASE = 'https://merchant-bedrock.dev/errors/';
const REALM = 'Bearer realm="merchant-bedrock"';
/** scope-token of RFC 6749, space separated: nothing that could close the quoted string. */
const SCOPE_PATTERN = /^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/;

/** RFC 6750 section 3.1. A request that brought no token gets the bare challenge, without an error code. */
const CHALLENGES: Partial<Record<ErrorCode, string>> = {
  'auth.missing_token': REALM,
  'auth.invalid_token': `${REALM}, error="invalid_token"`,
  'session.invalid': `${REALM}, error="invalid_token"`,
  'auth.insufficient_scope': `${REALM}, error="insufficient_scope"`,
  'auth.token_in_wrong_place': `${REALM}, error="invalid_request"`,
  // Another scheme than ours: who is calling may not know that it needs a token.
  'auth.sigv4_not_supported': REALM,
};

/**
 * Writes the public face of an error. The private cause stays behind.
 * `status` differs from the catalogue only for refusals below the routes (414, 431, 501).
 */
export function problemOf(
  error: ServiceError,
  requestId: string,
  status: number = ERRORS[error.code].status,
): ProblemDocument {
  return {
    ...error.options.extra,
    type: ERROR_TYPE_BASE + error.code,
    title: ERRORS[error.code].title,
    status,
    detail: error.detail,
    code: error.code,
    requestId,
    ...(error.options.problems === undefined ? {} : { problems: error.options.problems }),
  };
}

/**
 * Answers with a problem document. Once headers are out there is no honest answer left, and the response is cut.
 * Never throws for a response that is gone.
 */
export function sendProblem(
  res: ServerResponse,
  error: ServiceError,
  requestId: string,
  status: number = ERRORS[error.code].status,
): void {
  send(res, error, {
    status,
    body: problemOf(error, requestId, status),
    headers: { 'content-type': 'application/problem+json', 'x-request-id': requestId },
  });
}

/**
 * Answers as AWS would, so that an AWS SDK raises the exception its caller expects.
 * 401 becomes 403: AWS has no 401, and SDKs read 401 as a reason to look for other credentials. The challenge is there all the same.
 */
export function sendAwsError(res: ServerResponse, error: ServiceError, requestId: string): void {
  const row: ErrorRow = ERRORS[error.code];
  const { status, awsStatus = status === 401 ? 403 : status, awsType } = row;
  send(res, error, {
    status: awsStatus,
    body: { message: awsMessageOf(error) },
    headers: {
      'content-type': 'application/json',
      'x-amzn-errortype': awsType,
      'x-amzn-requestid': requestId,
      'x-request-id': requestId,
    },
  });
}

/** The same document as bytes of HTTP/1.1, for requests that never became a request. `reason` is the status phrase. */
export function rawProblem(error: ServiceError, requestId: string, status: number, reason: string): string {
  const body = JSON.stringify(problemOf(error, requestId, status));
  return [
    `HTTP/1.1 ${String(status)} ${reason}`,
    'Content-Type: application/problem+json',
    `Content-Length: ${String(Buffer.byteLength(body))}`,
    'Cache-Control: no-store',
    `X-Request-Id: ${requestId}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n');
}

interface Answer {
  status: number;
  body: object;
  headers: Record<string, string>;
}

function send(res: ServerResponse, error: ServiceError, answer: Answer): void {
  if (res.headersSent || res.writableEnded) {
    // Ended without headers: on HTTP/2, when a header of the first attempt was not legal.
    if (res.headersSent !== res.writableEnded) cutResponse(res);
    return;
  }
  const body = Buffer.from(JSON.stringify(answer.body));
  res.statusCode = answer.status;
  for (const [name, value] of Object.entries(answer.headers)) res.setHeader(name, value);
  res.setHeader('cache-control', 'no-store');
  res.setHeader('content-length', body.length);
  for (const [name, value] of Object.entries(headersOf(error))) res.setHeader(name, value);
  // Tells the client to stop an upload that nobody will read; server-http1.ts then lets the answer arrive first.
  if (hasLargeUnreadBody(res.req)) res.setHeader('connection', 'close');
  if (res.req.method === 'HEAD') res.end();
  else res.end(body);
}

/** What an error says in headers, in whatever words its body is. */
function headersOf(error: ServiceError): Record<string, string> {
  const { retryAfterSeconds, limit } = error.options;
  const challenge = challengeOf(error);
  return {
    ...(challenge !== undefined && { 'www-authenticate': challenge }),
    ...(retryAfterSeconds !== undefined && {
      'retry-after': String(Math.max(0, Math.ceil(retryAfterSeconds))),
    }),
    ...rateLimitHeaders(limit === undefined ? [] : [limit]),
  };
}

function challengeOf(error: ServiceError): string | undefined {
  if (error.options.challenge === 'bare') return REALM;
  if (error.options.challenge === 'invalid_request') return `${REALM}, error="invalid_request"`;
  const challenge = CHALLENGES[error.code];
  const scope = error.options.extra?.['scope'];
  if (error.code !== 'auth.insufficient_scope' || typeof scope !== 'string') return challenge;
  return SCOPE_PATTERN.test(scope) ? `${String(challenge)}, scope="${scope}"` : challenge;
}

/** SDK users see only this sentence, so the field problems and our code are in it. */
function awsMessageOf(error: ServiceError): string {
  const problems = error.options.problems ?? [];
  return [error.detail, ...(problems.length === 0 ? [] : [problems.join('; ')]), `[${error.code}]`].join(' ');
}
