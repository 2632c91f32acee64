import { timingSafeEqual } from 'node:crypto';
import { authError, bearerError } from './auth-errors.ts';
import { checkClaim } from './check-claim.ts';
import { expectedSignature, parseClaim } from './canonical.ts';
import { bearerFingerprint, principalArn } from './key-ring.ts';
import type { AccessKey, KeyRing, Signer } from './key-ring.ts';
import type { Service } from '../wire/errors.ts';
import type { AwsRequest } from '../wire/request.ts';

const MISMATCH =
  'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.';
/** Bearer keys open these two only. */
const BEARER_SERVICES: ReadonlySet<Service> = new Set(['bedrock', 'bedrock-runtime']);

/**
 * Proves who sent the request, by recomputing its signature from the secret that the stand-in knows.
 * @throws AwsError by the names in auth-errors.ts
 */
export function authenticate(request: AwsRequest, service: Service, keys: KeyRing): Signer {
  const header = request.headers['authorization'];
  if (!header) throw authError(service, 'missing', 'Missing Authentication Token');
  const [, token] = /^Bearer\s+(.+)$/i.exec(header) ?? [];
  if (token !== undefined && BEARER_SERVICES.has(service)) return bearer(token, keys);
  return signed(request, service, header, keys);
}

function signed(request: AwsRequest, service: Service, header: string, keys: KeyRing): Signer {
  const claim = parseClaim(header);
  if (!claim) {
    throw authError(
      service,
      'incomplete',
      'Authorization header requires Credential, SignedHeaders and Signature parameters.',
    );
  }
  const key = knownKey(request, service, keys.accessKey(claim.accessKeyId));
  checkClaim(request, service, claim);
  const expected = expectedSignature(request, claim, key.secretAccessKey);
  if (!timingSafeEqual(Buffer.from(expected), Buffer.from(claim.signature)))
    throw authError(service, 'signature', MISMATCH);
  // AWS looks at the expiry of a token whose signature holds; a bad signature is reported first.
  if (isExpired(key))
    throw authError(service, 'expired', 'The security token included in the request is expired');
  return {
    accountId: key.accountId,
    arn: principalArn(key),
    region: claim.region,
    accessKeyId: key.accessKeyId,
    deny: key.deny ?? [],
    policy: key.policy,
    sessionPolicy: key.sessionPolicy,
    temporary: key.sessionToken !== undefined,
  };
}

function isExpired({ state, expiresAtMs = Infinity }: AccessKey): boolean {
  return state === 'expired' || expiresAtMs < Date.now();
}

function bearer(token: string, keys: KeyRing): Signer {
  const key = keys.apiKey(token);
  if (!key || key.state === 'deactivated')
    throw bearerError('Authentication failed: Please make sure your API Key is valid.');
  if (key.state === 'expired') throw bearerError('Bearer Token has expired');
  return {
    accountId: key.accountId,
    arn: principalArn(key),
    region: key.region ?? 'us-east-1',
    bearerFingerprint: bearerFingerprint(token),
    deny: key.deny ?? [],
    policy: key.policy,
    temporary: false,
  };
}

function knownKey(request: AwsRequest, service: Service, key: AccessKey | undefined): AccessKey {
  const tokenFits = key?.sessionToken === request.headers['x-amz-security-token'];
  const known = key !== undefined && (key.validFromMs ?? 0) <= Date.now();
  if (!known || key.state === 'deactivated' || !tokenFits) {
    throw authError(service, 'unknown', 'The security token included in the request is invalid.');
  }
  return key;
}
