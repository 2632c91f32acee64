import type { NextFunction, Request, Response } from 'express';
import { SYSTEM_CHAIN } from '../../domain/audit.ts';
import { ServiceError } from '../../domain/errors.ts';
import type { ErrorCode } from '../../domain/error-catalogue.ts';
import { errorFields } from '../../observability/logger.ts';
import { sendAwsError, sendProblem } from '../problem.ts';
import type { Services } from '../services.ts';
import { carriedBy } from './begin.ts';

/** Refusals of a caller who is known: each is an event of the caller's own audit chain. */
const DENIALS: ReadonlySet<ErrorCode> = new Set([
  'auth.insufficient_scope',
  'auth.source_not_allowed',
  'merchant.not_found',
  'model.foreign_arn',
  'session.invalid',
]);
/** Names AWS uses below our prefix: what is not routed there still gets an answer in AWS's words. */
const AWS_PATH =
  /^\/api\/merchants\/[^/]+\/bedrock\/(model|guardrail|async-invoke|foundation-model|inference-profile|provisioned-model)/;

/** The last step: turns any error into an answer. What is not a ServiceError says nothing about itself. */
export function answerError(services: Services) {
  return (error: unknown, req: Request, res: Response, _next: NextFunction): void => {
    void answer(services, toServiceError(error), { req, res });
  };
}

async function answer(
  services: Services,
  error: ServiceError,
  { req, res }: { req: Request; res: Response },
): Promise<void> {
  const { requestId, event, principal } = carriedBy(res);
  event['code'] = error.code;
  const cause = error.options.cause;
  if (cause !== undefined || error.code === 'internal')
    services.logger.warn('request failed', { requestId, code: error.code, ...errorFields(cause ?? error) });
  if (principal !== undefined && DENIALS.has(error.code)) await recordDenial(services, error, res);
  if (AWS_PATH.test(req.originalUrl)) sendAwsError(res, error, requestId);
  else sendProblem(res, error, requestId);
}

/** A refusal stands whether or not it could be recorded: nothing was done. */
async function recordDenial(services: Services, error: ServiceError, res: Response): Promise<void> {
  const { requestId, event, principal } = carriedBy(res);
  if (principal === undefined) return;
  const entry = {
    actor: principal.subject,
    action: 'access.denied' as const,
    resource: typeof event['route'] === 'string' ? event['route'] : 'unknown',
    outcome: 'denied' as const,
    requestId,
    body: { code: error.code },
  };
  try {
    await (principal.kind === 'merchant'
      ? services.audit.append(principal.merchantId, entry)
      : services.audit.appendSystem(entry));
  } catch (failure) {
    services.logger.error('denial not recorded', {
      requestId,
      chain: principal.kind === 'merchant' ? principal.merchantId : SYSTEM_CHAIN,
      ...errorFields(failure),
    });
  }
}

function toServiceError(error: unknown): ServiceError {
  if (error instanceof ServiceError) return error;
  // Express refuses a malformed percent-encoding in a path by a URIError with status 400.
  if (error instanceof URIError)
    return new ServiceError('request.invalid', 'The path has a malformed percent-encoding.', {
      cause: error,
    });
  return new ServiceError(
    'internal',
    'Something failed on our side. Give us the requestId and we can find it.',
    { cause: error },
  );
}
