import { bearerFingerprint } from './identity/key-ring.ts';
import { JOURNAL_BODY_BYTES_MAX } from './journal.ts';
import type { Receipt } from './journal.ts';
import type { Route } from './routes.ts';
import type { Signer } from './identity/key-ring.ts';
import type { AwsRequest, Headers } from './wire/request.ts';

const SECRET_HEADERS = new Set(['authorization', 'x-amz-security-token', 'x-api-key', 'cookie']);
const METADATA_HEADER = 'x-amzn-bedrock-request-metadata';

/** What the journal holds of a request from the moment of its receipt; no credential is in it. */
export function receiptOf(
  request: AwsRequest,
  route: Route,
  requestId: string,
  signer: Signer | undefined,
): Receipt {
  const metadata = requestMetadata(request, route);
  return {
    service: route.service,
    operation: route.operation,
    method: request.method,
    path: request.query === '' ? request.path : `${request.path}?${request.query}`,
    protocol: request.protocol,
    requestId,
    ...claimedIdentity(request.headers),
    ...(signer && { accountId: signer.accountId, region: signer.region }),
    ...(route.resource && { modelId: route.resource }),
    verified: signer !== undefined,
    headers: withoutCredentials(request.headers),
    bodySha256: request.bodySha256,
    bodyBytes: request.body.length,
    bodyBase64: request.body.subarray(0, JOURNAL_BODY_BYTES_MAX).toString('base64'),
    ...(metadata && { requestMetadata: metadata }),
  };
}

function claimedIdentity(headers: Headers): { accessKeyId?: string; bearerFingerprint?: string } {
  const authorization = headers['authorization'] ?? '';
  const [, accessKeyId] = /Credential=([^/,\s]+)/.exec(authorization) ?? [];
  const [, token] = /^Bearer\s+(.+)$/i.exec(authorization) ?? [];
  return {
    ...(accessKeyId && { accessKeyId }),
    ...(token && { bearerFingerprint: bearerFingerprint(token) }),
  };
}

function withoutCredentials(headers: Headers): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, SECRET_HEADERS.has(name) ? '[present]' : value]),
  );
}

/** Cost-allocation metadata: a header on InvokeModel, a body member on Converse. */
function requestMetadata(request: AwsRequest, route: Route): Record<string, string> | undefined {
  if (route.service !== 'bedrock-runtime') return undefined;
  try {
    const header = request.headers[METADATA_HEADER];
    const found: unknown =
      header === undefined
        ? JSON.parse(request.body.toString('utf8'))
        : { requestMetadata: JSON.parse(header) as unknown };
    const { requestMetadata: metadata } = found as { requestMetadata?: Record<string, string> };
    return metadata;
  } catch {
    return undefined;
  }
}
