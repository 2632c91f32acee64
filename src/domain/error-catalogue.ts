/** What a code means on our JSON routes (`status`, `title`) and on AWS-shaped routes (`awsType`). */
export interface ErrorRow {
  status: number;
  title: string;
  /** Sent as `x-amzn-errortype`; SDKs name the exception class after it. */
  awsType: string;
  /** On AWS-shaped routes, where AWS itself uses another status and SDKs go by it. */
  awsStatus?: number;
}

/** Every error this service can answer with. A code without a row does not compile; docs/errors.md is held equal by a test. */
export const ERRORS = {
  'auth.missing_token': {
    status: 401,
    title: 'Authentication required',
    awsType: 'UnrecognizedClientException',
  },
  'auth.invalid_token': { status: 401, title: 'Token not accepted', awsType: 'UnrecognizedClientException' },
  'auth.token_in_wrong_place': {
    status: 400,
    title: 'Token in query or body',
    awsType: 'ValidationException',
  },
  'auth.sigv4_not_supported': {
    status: 403,
    title: 'AWS signatures are not accepted here',
    awsType: 'UnrecognizedClientException',
  },
  'auth.too_many_failures': {
    status: 429,
    title: 'Too many failed attempts to authenticate',
    awsType: 'ThrottlingException',
  },
  'auth.unavailable': {
    status: 503,
    title: 'Token cannot be verified now',
    awsType: 'ServiceUnavailableException',
  },
  'auth.insufficient_scope': { status: 403, title: 'Token lacks a scope', awsType: 'AccessDeniedException' },
  'auth.source_not_allowed': {
    status: 403,
    title: 'Credential source not allowed',
    awsType: 'AccessDeniedException',
  },
  'merchant.not_found': { status: 404, title: 'Merchant not found', awsType: 'ResourceNotFoundException' },
  'merchant.already_exists': { status: 409, title: 'Merchant already exists', awsType: 'ConflictException' },
  'merchant.not_active': { status: 403, title: 'Merchant is not active', awsType: 'AccessDeniedException' },
  'merchant.closed': { status: 409, title: 'Merchant is closed for good', awsType: 'ConflictException' },
  'api_key.not_found': { status: 404, title: 'API key not found', awsType: 'ResourceNotFoundException' },
  'api_key.not_usable': { status: 409, title: 'API key cannot be used', awsType: 'ConflictException' },
  'api_key.rolled_before': { status: 409, title: 'API key was rolled before', awsType: 'ConflictException' },
  'credential.none_chosen': { status: 400, title: 'No credential chosen', awsType: 'ValidationException' },
  'credential.choice_invalid': {
    status: 400,
    title: 'Credential choice is not valid',
    awsType: 'ValidationException',
  },
  'credential.not_found': {
    status: 404,
    title: 'Credential not found',
    awsType: 'ResourceNotFoundException',
  },
  'credential.not_usable': {
    status: 409,
    title: 'Credential cannot be used',
    awsType: 'AccessDeniedException',
  },
  'credential.unsafe': {
    status: 409,
    title: 'Role can be assumed without its ExternalId',
    awsType: 'AccessDeniedException',
  },
  'credential.refused_by_aws': {
    status: 422,
    title: 'AWS refused the credential',
    awsType: 'AccessDeniedException',
  },
  'credential.unreadable': {
    status: 503,
    title: 'Stored credential cannot be opened',
    awsType: 'ServiceUnavailableException',
  },
  'rotation.in_progress': {
    status: 409,
    title: 'A rotation is under way',
    awsType: 'ConflictException',
  },
  'rotation.too_soon': { status: 429, title: 'Rotated a short while ago', awsType: 'ThrottlingException' },
  'rotation.account_changed': {
    status: 422,
    title: 'New credential is of another AWS account',
    awsType: 'AccessDeniedException',
  },
  'rotation.failed': { status: 409, title: 'Rotation was given up', awsType: 'ConflictException' },
  'rotation.not_reversible': {
    status: 409,
    title: 'No version to go back to',
    awsType: 'ConflictException',
  },
  'session.invalid': { status: 401, title: 'Session not accepted', awsType: 'ExpiredTokenException' },
  'service_defaults.not_configured': {
    status: 409,
    title: 'Service defaults are not configured',
    awsType: 'AccessDeniedException',
  },
  'region.not_allowed': { status: 400, title: 'Region not allowed', awsType: 'ValidationException' },
  'model.id_invalid': { status: 400, title: 'Model id is not valid', awsType: 'ValidationException' },
  'model.foreign_arn': {
    status: 403,
    title: 'ARN belongs to another account or region',
    awsType: 'AccessDeniedException',
  },
  'request.invalid': { status: 400, title: 'Request is not valid', awsType: 'ValidationException' },
  'request.malformed_json': {
    status: 400,
    title: 'Body is not valid JSON',
    awsType: 'SerializationException',
  },
  'request.too_complex': {
    status: 400,
    title: 'Body is nested too deeply or has too many members',
    awsType: 'ValidationException',
  },
  'request.too_large': { status: 413, title: 'Body is too large', awsType: 'ValidationException' },
  'request.length_required': {
    status: 411,
    title: 'Content-Length required',
    awsType: 'ValidationException',
  },
  'request.unsupported_media_type': {
    status: 415,
    title: 'Content type not supported',
    awsType: 'ValidationException',
  },
  'request.aborted': { status: 499, title: 'Client closed the request', awsType: 'ValidationException' },
  'request.timeout': { status: 408, title: 'Request body took too long', awsType: 'ValidationException' },
  'route.not_found': { status: 404, title: 'No such route', awsType: 'UnknownOperationException' },
  'route.method_not_allowed': {
    status: 405,
    title: 'Method not allowed',
    awsType: 'UnknownOperationException',
  },
  'limit.rate_exceeded': { status: 429, title: 'Rate limit reached', awsType: 'ThrottlingException' },
  'limit.budget_exceeded': {
    status: 429,
    title: 'Budget used up',
    awsType: 'ServiceQuotaExceededException',
    // SDKs retry 429 and wait as long as Retry-After says: days, for a budget.
    awsStatus: 400,
  },
  'limit.share_exceeded': {
    status: 429,
    title: 'Too many calls at one time',
    awsType: 'ThrottlingException',
  },
  'limit.model_not_allowed': {
    status: 403,
    title: 'Model not in the plan',
    awsType: 'AccessDeniedException',
  },
  'limit.max_tokens': {
    status: 400,
    title: 'Too many output tokens asked for',
    awsType: 'ValidationException',
  },
  'limit.unpriced': { status: 403, title: 'Model has no price', awsType: 'AccessDeniedException' },
  'plan.not_found': { status: 404, title: 'Plan not found', awsType: 'ResourceNotFoundException' },
  'call.not_found': { status: 404, title: 'Call not found', awsType: 'ResourceNotFoundException' },
  'call.revoked': {
    status: 403,
    title: 'Call ended: its right was revoked',
    awsType: 'AccessDeniedException',
  },
  'call.not_unknown': { status: 409, title: 'Call is not unknown', awsType: 'ConflictException' },
  'checkpoint.not_found': {
    status: 404,
    title: 'No checkpoint yet',
    awsType: 'ResourceNotFoundException',
  },
  'webhook.not_found': { status: 404, title: 'Webhook not found', awsType: 'ResourceNotFoundException' },
  'webhook.delivery_not_found': {
    status: 404,
    title: 'Delivery not found',
    awsType: 'ResourceNotFoundException',
  },
  'webhook.delivery_pending': {
    status: 409,
    title: 'Delivery is still being tried',
    awsType: 'ConflictException',
  },
  'webhook.disabled': { status: 409, title: 'Webhook is disabled', awsType: 'ConflictException' },
  'webhook.too_many': { status: 409, title: 'Too many webhooks', awsType: 'ConflictException' },
  'idempotency.key_reused': {
    status: 422,
    title: 'Idempotency key used for something else',
    awsType: 'ValidationException',
    awsStatus: 400,
  },
  'idempotency.in_progress': {
    status: 409,
    title: 'The first call with this key is still running',
    awsType: 'ThrottlingException',
    // What SDKs try again by themselves.
    awsStatus: 429,
  },
  'idempotency.done_before': {
    status: 409,
    title: 'Call was made before',
    awsType: 'ConflictException',
    awsStatus: 400,
  },
  'upstream.access_denied': {
    status: 422,
    title: 'AWS denied the call',
    awsType: 'AccessDeniedException',
    awsStatus: 403,
  },
  'upstream.error': { status: 502, title: 'AWS answered with an error', awsType: 'InternalServerException' },
  'upstream.throttled': { status: 429, title: 'AWS throttled the call', awsType: 'ThrottlingException' },
  'upstream.unreachable': {
    status: 502,
    title: 'AWS could not be reached',
    awsType: 'ServiceUnavailableException',
  },
  'upstream.timeout': { status: 504, title: 'AWS did not answer in time', awsType: 'ModelTimeoutException' },
  'upstream.incomplete': {
    status: 502,
    title: 'The answer from AWS was cut off',
    awsType: 'ModelStreamErrorException',
  },
  'service.overloaded': {
    status: 503,
    title: 'Service is at capacity',
    awsType: 'ServiceUnavailableException',
  },
  'service.shutting_down': {
    status: 503,
    title: 'Service is shutting down',
    awsType: 'ServiceUnavailableException',
  },
  'ledger.unavailable': {
    status: 503,
    title: 'Ledger is not available',
    awsType: 'ServiceUnavailableException',
  },
  'vault.unavailable': {
    status: 503,
    title: 'Vault is not available',
    awsType: 'ServiceUnavailableException',
  },
  internal: { status: 500, title: 'Internal error', awsType: 'InternalServerException' },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;
