import { expect, test } from '@jest/globals';
import { classifyReply } from '../../src/bedrock/aws-errors.ts';
import { failureOf } from '../../src/bedrock/probes.ts';
import { findingOfCall } from '../../src/bedrock/verdicts.ts';

/** What a call of the model that AWS answers so is taken for. */
function findingOf(type: string, message: string, probe: 'invalid-body' | 'paid' = 'invalid-body') {
  const body = Buffer.from(JSON.stringify({ message }));
  const status = { AccessDeniedException: 403, ResourceNotFoundException: 404 }[type] ?? 400;
  const refusal = classifyReply({ status, headers: { 'x-amzn-errortype': type }, body });
  return findingOfCall(probe, failureOf(refusal, 'bedrock:InvokeModel'), undefined);
}

const LEGACY =
  'Access denied. This Model is marked by provider as Legacy and you have not been actively using the model in the last 15 days. Please upgrade to an active model on Amazon Bedrock';
const USE_CASE =
  'Model use case details have not been submitted for this account. Fill out the Anthropic use case details form before using the model.';
const MALFORMED = 'Malformed input request, please reformat your input and try again.';

test.each([
  ['ValidationException', MALFORMED, 'allowed', 'likely'],
  ['ValidationException', 'The request body could not be read as JSON.', 'allowed', 'likely'],
  ['ValidationException', 'messages: Field required', 'allowed', 'likely'],
  ['ValidationException', 'Operation not allowed', 'unknown', 'none'],
  ['ValidationException', 'The service is not open to you.', 'unknown', 'none'],
  ['ValidationException', 'The provided model identifier is invalid.', 'not-in-this-region', 'likely'],
  ['ResourceNotFoundException', 'The deployment is gone.', 'not-in-this-region', 'likely'],
  ['ResourceNotFoundException', 'No json.', 'not-in-this-region', 'likely'],
  ['ResourceNotFoundException', LEGACY, 'model-not-available-to-account', 'likely'],
  ['ResourceNotFoundException', USE_CASE, 'model-not-available-to-account', 'likely'],
  [
    'AccessDeniedException',
    'Your account is not authorized to invoke this API operation.',
    'model-not-available-to-account',
    'proven',
  ],
  ['AccessDeniedException', 'no', 'denied-by-iam', 'likely'],
])('%s %j is %s, %s', (type, message, verdict, certainty) => {
  for (const probe of ['invalid-body', 'paid'] as const) {
    const finding = findingOf(type, message, probe);
    expect(finding).toMatchObject({ verdict, certainty, probe });
    expect(finding.why).toContain(message);
  }
});
