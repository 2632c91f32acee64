import { ServiceError } from '../domain/errors.ts';
import { STREAM_OPERATIONS } from '../domain/usage.ts';
import type { Operation } from '../domain/usage.ts';

/**
 * Request headers that may go on to AWS, each with the values it may have. Source: the members of InvokeModel and Converse that travel as
 * headers. `x-amzn-bedrock-request-metadata` is not among them: it is ours.
 */
const TO_AWS: Readonly<Record<string, RegExp>> = {
  'content-type': /^[a-zA-Z0-9!#$&^_.+-]{1,64}\/[a-zA-Z0-9!#$&^_.+-]{1,64}(; ?charset=[a-zA-Z0-9-]{1,32})?$/,
  accept: /^[a-zA-Z0-9!#$&^_.+*-]{1,64}\/[a-zA-Z0-9!#$&^_.+*-]{1,64}$/,
  'x-amzn-bedrock-accept': /^[a-zA-Z0-9!#$&^_.+*-]{1,64}\/[a-zA-Z0-9!#$&^_.+*-]{1,64}$/,
  'x-amzn-bedrock-trace': /^(ENABLED|DISABLED|ENABLED_FULL)$/,
  'x-amzn-bedrock-guardrailidentifier': /^[a-zA-Z0-9:/._-]{1,2048}$/,
  'x-amzn-bedrock-guardrailversion': /^(DRAFT|[1-9][0-9]{0,7})$/,
  'x-amzn-bedrock-performanceconfig-latency': /^(standard|optimized)$/,
  'x-amzn-bedrock-service-tier': /^(priority|default|flex|reserved)$/,
};

/** Response headers that may go back to the caller. */
const FROM_AWS =
  /^(content-type|retry-after|x-amz-retry-after|x-amzn-requestid|x-amzn-errortype|x-amzn-bedrock-[a-z-]{1,64})$/;

/** A body without a type (boto3's invoke_model sends none) is JSON, as AWS assumes too. */
const DEFAULT_CONTENT_TYPE = 'application/json';

/**
 * The headers of a request that go on to AWS: those on the list, nothing else.
 * @throws ServiceError request.invalid for a value that AWS would not take; the value is not repeated.
 */
export function requestHeadersForAws(
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  operation: Operation,
): Record<string, string> {
  const forwarded: Record<string, string> = { 'content-type': DEFAULT_CONTENT_TYPE };
  for (const [name, allowed] of Object.entries(TO_AWS)) {
    const value = headers[name];
    if (value === undefined || (name === 'accept' && isAboutUs(value, operation))) continue;
    if (typeof value !== 'string' || !allowed.test(value))
      throw new ServiceError('request.invalid', `The header ${name} has a value that Bedrock does not take.`);
    forwarded[name] = value;
  }
  return forwarded;
}

/** The headers of AWS's answer that go back to the caller. */
export function responseHeadersFromAws(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => FROM_AWS.test(name)));
}

/**
 * `Accept: text/event-stream` is a wish to us and not to AWS, whose streams are binary; on streams Accept has no other meaning to AWS, which
 * takes the type of the payload from x-amzn-bedrock-accept. Lists of types are what browsers send, and mean nothing in particular.
 */
function isAboutUs(accept: string | readonly string[], operation: Operation): boolean {
  return (
    STREAM_OPERATIONS.has(operation) ||
    typeof accept !== 'string' ||
    accept.includes(',') ||
    accept.includes(';') ||
    accept === 'text/event-stream'
  );
}
