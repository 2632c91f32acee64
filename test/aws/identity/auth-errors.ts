import { AwsError } from '../wire/errors.ts';
import type { Service } from '../wire/errors.ts';

type Failure = 'missing' | 'incomplete' | 'unknown' | 'expired' | 'signature';

interface FailureRow {
  rest: string;
  query: string;
  status: number;
}

/** What AWS's front door calls each failure: `rest` on JSON services, `query` on STS and IAM. */
const FAILURES: Record<Failure, FailureRow> = {
  missing: { rest: 'MissingAuthenticationTokenException', query: 'MissingAuthenticationToken', status: 403 },
  incomplete: { rest: 'IncompleteSignatureException', query: 'IncompleteSignature', status: 400 },
  unknown: { rest: 'UnrecognizedClientException', query: 'InvalidClientTokenId', status: 403 },
  expired: { rest: 'ExpiredTokenException', query: 'ExpiredToken', status: 403 },
  signature: { rest: 'InvalidSignatureException', query: 'SignatureDoesNotMatch', status: 403 },
};

/** A refusal at the front door, by the name and status that this service's clients know it by. */
export function authError(service: Service, failure: Failure, message: string): AwsError {
  const row = FAILURES[failure];
  if (service === 'sts' || service === 'iam') return new AwsError(row.query, message, { status: row.status });
  const jsonTarget = service === 'kms' || service === 'secretsmanager' || service === 'logs';
  return new AwsError(row.rest, message, { status: jsonTarget ? 400 : row.status, namespace: 'coral' });
}

/** A Bedrock API key that is not accepted: AWS answers with a capital `Message` here. */
export function bearerError(message: string): AwsError {
  return new AwsError('AccessDeniedException', message, {
    status: 403,
    body: { Message: message },
    namespace: 'coral',
  });
}
