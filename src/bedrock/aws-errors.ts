import { ServiceError } from '../domain/errors.ts';
import { denialOfCall, howToAllow, missingStatement } from './access-denied.ts';
import type { DeniedCall } from './access-denied.ts';
import { awsFailure } from './aws-failures.ts';
import { ACTION_OF_OPERATION } from './policy.ts';
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

/** Statuses that say the same where AWS names no exception (its front door does that): refused at the door. */
const REFUSED_STATUSES: ReadonlySet<number> = new Set([400, 401, 403, 404, 405, 411, 413, 415, 429, 431]);
/** How Bedrock refuses one of its API keys: a 403 without an exception's name, or with that of a denial. */
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
  const meaning = type === undefined ? meaningOfStatus(status, message) : meaningOfType(type, message);
  return {
    status,
    type: type ?? `Http${String(status)}`,
    message,
    ...meaning,
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

function meaningOfType(type: string, message: string): Meaning {
  const row = awsFailure(type);
  const badApiKey = type === 'AccessDeniedException' && BAD_API_KEY.test(message);
  return {
    execution: row?.charged === 'no' ? 'refused' : 'unknown',
    credentialBroken: badApiKey || row?.code === 'credential.refused_by_aws',
  };
}

function meaningOfStatus(status: number, message: string): Meaning {
  const execution = REFUSED_STATUSES.has(status) ? 'refused' : 'unknown';
  return { execution, credentialBroken: status === 403 && BAD_API_KEY.test(message) };
}

/**
 * A refusal of AWS for our own JSON routes: whose fault it is and what to do. AWS's words are passed on where they are about the merchant's own
 * account; of the service's own account nothing is told.
 */
export function serviceErrorOf(refusal: AwsRefusal, call: DeniedCall): ServiceError {
  const { type, status, awsRequestId, retryAfterSeconds } = refusal;
  const message = publicMessage(refusal, call);
  const said = message === '' ? type : `${type}: ${message}`;
  const extra = { awsType: type, awsStatus: status, ...(awsRequestId !== undefined && { awsRequestId }) };
  if (refusal.credentialBroken) {
    return new ServiceError(
      'credential.refused_by_aws',
      `AWS does not accept this credential (${said}). Test it with POST /credentials/:cid/test, or store a new one.`,
      { extra },
    );
  }
  if (awsFailure(type)?.code === 'upstream.throttled' || status === 429) {
    return new ServiceError(
      'upstream.throttled',
      `AWS throttled the call in the merchant's account (${said}). Try again later, or ask AWS for a higher quota.`,
      { extra, retryAfterSeconds: retryAfterSeconds ?? 1 },
    );
  }
  if (type === 'AccessDeniedException') return accessDenied(refusal, call, { said, extra });
  return new ServiceError('upstream.error', `AWS answered with an error: ${said}`, { extra });
}

function accessDenied(
  { message }: AwsRefusal,
  call: DeniedCall,
  { said, extra }: { said: string; extra: Record<string, string | number> },
): ServiceError {
  if (call.source === 'service-default') {
    const action = ACTION_OF_OPERATION[call.operation];
    return new ServiceError('upstream.access_denied', NOT_FOR_THE_SERVICE, { extra: { ...extra, action } });
  }
  const denial = denialOfCall(message, call);
  const { action, resource, principal } = denial;
  const statement = missingStatement(denial);
  return new ServiceError('upstream.access_denied', `AWS denied the call (${said}). ${howToAllow(denial)}`, {
    extra: {
      ...extra,
      deniedBy: denial.by,
      action,
      ...(resource !== undefined && { resource }),
      ...(principal !== undefined && { principal }),
      ...(statement !== undefined && { statement }),
    },
  });
}

const NOT_FOR_THE_SERVICE =
  "AWS denied the call to the service's own AWS account. Ask the operator to allow it there, or name a credential of your own.";
/** What would tell a merchant whom the operator calls as. The account's number is no secret: every answer has it. */
const OF_AN_ACCOUNT = /arn:/;

function publicMessage({ message }: AwsRefusal, { source }: DeniedCall): string {
  return source === 'service-default' && OF_AN_ACCOUNT.test(message) ? '' : message;
}

/**
 * The body of a refusal for AWS-shaped routes: AWS's own, with the remedy after AWS's sentence where it denied the call, for SDKs show that
 * sentence and nothing else. Of the service's own account AWS's sentence is not told. Type and status stay AWS's.
 */
export function explainedBody(body: Buffer, refusal: AwsRefusal, call: DeniedCall): Buffer {
  const json = parseObject(body);
  const name = ['message', 'Message'].find((member) => typeof json?.[member] === 'string');
  if (name === undefined) return body;
  const replaced = (message: string): Buffer => Buffer.from(JSON.stringify({ ...json, [name]: message }));
  if (publicMessage(refusal, call) !== refusal.message) return replaced(NOT_FOR_THE_SERVICE);
  if (refusal.type !== 'AccessDeniedException' || refusal.credentialBroken) return body;
  const denial = denialOfCall(refusal.message, call);
  const statement = missingStatement(denial);
  const add = statement === undefined ? '' : ` Add: ${JSON.stringify(statement)}`;
  return replaced(`${refusal.message} [merchant-bedrock: ${howToAllow(denial)}${add}]`);
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
