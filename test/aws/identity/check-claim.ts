import { authError } from './auth-errors.ts';
import type { SignatureClaim } from './canonical.ts';
import type { Service } from '../wire/errors.ts';
import type { AwsRequest } from '../wire/request.ts';

/** AWS accepts a signature for five minutes on either side of its own clock. */
const SKEW_MS = 5 * 60_000;

/**
 * Everything about a signature that can be judged without the secret: scope, signed headers, date, body hash.
 * @throws AwsError
 */
export function checkClaim(request: AwsRequest, service: Service, claim: SignatureClaim): void {
  checkScope(request, service, claim);
  checkDate(request, service, claim);
  checkBodyHash(request, service);
}

function checkScope(request: AwsRequest, service: Service, claim: SignatureClaim): void {
  const scopeService = service === 'bedrock-runtime' ? 'bedrock' : service;
  if (claim.service !== scopeService)
    throw authError(
      service,
      'signature',
      `Credential should be scoped to correct service: '${scopeService}'.`,
    );
  if (service === 'iam' && claim.region !== 'us-east-1')
    throw authError(service, 'signature', "Credential should be scoped to a valid region: 'us-east-1'.");
  const signed = new Set(claim.signedHeaders);
  const missing = requiredHeaders(request).find((names) => !names.some((name) => signed.has(name)));
  if (missing)
    throw authError(
      service,
      'signature',
      `'${missing.join("' or '")}' must be a 'SignedHeader' in the AWS Authorization.`,
    );
}

function requiredHeaders({ headers }: AwsRequest): string[][] {
  const always = [['host', ':authority'], ['x-amz-date']];
  return 'x-amz-security-token' in headers ? [...always, ['x-amz-security-token']] : always;
}

function checkDate(request: AwsRequest, service: Service, claim: SignatureClaim): void {
  const stamp = request.headers['x-amz-date'] ?? '';
  const at = Date.parse(stamp.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'));
  if (Number.isNaN(at))
    throw authError(service, 'incomplete', `Date must be in ISO-8601 'basic format'. Got '${stamp}'.`);
  if (!stamp.startsWith(claim.date))
    throw authError(
      service,
      'signature',
      'Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.',
    );
  const age = Date.now() - at;
  if (age > SKEW_MS)
    throw authError(
      service,
      'signature',
      `Signature expired: ${stamp} is now earlier than ${basicDate(Date.now() - SKEW_MS)} (${basicDate(Date.now())} - 5 min.)`,
    );
  if (age < -SKEW_MS)
    throw authError(
      service,
      'signature',
      `Signature not yet current: ${stamp} is still later than ${basicDate(Date.now() + SKEW_MS)} (${basicDate(Date.now())} + 5 min.)`,
    );
}

function basicDate(ms: number): string {
  return new Date(ms).toISOString().replace(/[-:]|\.\d+/g, '');
}

function checkBodyHash(request: AwsRequest, service: Service): void {
  const claimed = request.headers['x-amz-content-sha256'];
  if (claimed === undefined || claimed === request.bodySha256) return;
  throw authError(
    service,
    'signature',
    "The value of 'x-amz-content-sha256' does not match the SHA-256 of the request's body.",
  );
}
