import { createHash, timingSafeEqual } from 'node:crypto';
import { ServiceError } from '../domain/errors.ts';
import { isBedrockRegion } from '../domain/region.ts';

/** The services we call, named as in their host names: Bedrock's two sign as `bedrock`, those of its logs by their own names. */
export type AwsService = 'bedrock-runtime' | 'bedrock' | 'logs' | 's3';

/**
 * The only place where an address of Bedrock, or of its logs, is made: from the list of regions, never from input.
 * `override` is an endpoint set by whoever runs the service (a VPC endpoint, the stand-in) and goes before the list.
 * @throws ServiceError region.not_allowed | internal (the override is not a plain http(s) URL)
 */
export function endpointFor(service: AwsService, region: string, override?: string): URL {
  if (!isBedrockRegion(region)) {
    throw new ServiceError('region.not_allowed', 'Bedrock has no endpoint in this region.');
  }
  if (override === undefined) return new URL(`https://${service}.${region}.amazonaws.com`);
  if (!URL.canParse(override) || !isPlain(new URL(override))) {
    throw new ServiceError('internal', 'The endpoint set for Bedrock is not a plain http or https URL.');
  }
  return new URL(override);
}

function isPlain(url: URL): boolean {
  const extras = `${url.username}${url.password}${url.search}${url.hash}`;
  return ['https:', 'http:'].includes(url.protocol) && extras === '';
}

/** SHA-256 of a secret header value: lets the guard compare in constant time without keeping the secret. */
export function fingerprint(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** Who must have signed. `sessionToken` and `authorization` are fingerprints. */
export type ExpectedSigner =
  | {
      scheme: 'sigv4';
      accessKeyId: string;
      region: string;
      sessionToken: Buffer | undefined;
      /** The name that is signed for; `bedrock` where it is not said. */
      service?: 'bedrock' | 'logs' | 's3';
    }
  | { scheme: 'bearer'; authorization: Buffer };

export interface ExpectedRequest {
  method: 'GET' | 'POST';
  /** Its path, without a slash at the end, comes before `path`. */
  endpoint: URL;
  /** Anchored; matches the path below the endpoint. */
  path: RegExp;
  /** The names that its query may have; none where it is not said. */
  query?: readonly string[];
  signer: ExpectedSigner;
}

/** The parts of a signed request that decide where it goes and who pays. Shape of @smithy's HttpRequest. */
export interface SignedRequest {
  protocol: string;
  hostname: string;
  port?: number | undefined;
  method: string;
  path: string;
  query?: Readonly<Record<string, unknown>> | undefined;
  username?: string | undefined;
  password?: string | undefined;
  fragment?: string | undefined;
  headers: Readonly<Record<string, string>>;
}

/**
 * Says what is wrong with a request that is about to leave, or undefined. Names the part, never the value.
 * Looks at the final, signed request, so it does not matter which step before made the mistake.
 */
export function egressProblem(request: SignedRequest, expected: ExpectedRequest): string | undefined {
  return (
    hostProblem(request, expected.endpoint) ??
    targetProblem(request, expected) ??
    headerProblem(request.headers, expected)
  );
}

function hostProblem(request: SignedRequest, endpoint: URL): string | undefined {
  if (request.protocol !== endpoint.protocol) return 'protocol';
  if (request.hostname !== endpoint.hostname) return 'hostname';
  if (String(request.port ?? '') !== endpoint.port) return 'port';
  return undefined;
}

function targetProblem(request: SignedRequest, { endpoint, method, path, query = [] }: ExpectedRequest) {
  if (request.method !== method) return 'method';
  if ((request.username ?? request.password ?? request.fragment) !== undefined) return 'user or fragment';
  if (!onlyHas(request.query, query)) return 'query';
  const base = basePath(endpoint);
  const below = request.path.slice(base.length);
  return request.path.startsWith(base) && path.test(below) && isPlainPath(below) ? undefined : 'path';
}

function onlyHas(query: SignedRequest['query'], names: readonly string[]): boolean {
  return Object.keys(query ?? {}).every((name) => names.includes(name));
}

/** The path of an endpoint without the slash at its end: '' for a bare host. */
export function basePath(endpoint: URL): string {
  return endpoint.pathname.replace(/\/$/, '');
}

/** No dot segments, also not encoded (a proxy on the way may decode them), and no character that ends a path. */
function isPlainPath(path: string): boolean {
  return !/[?#\\\s]|%2e/i.test(path) && !/\/\.{1,2}(\/|$)/.test(path);
}

/** Would change the message's framing or its next hop (RFC 9110, 7.6.1). */
const FORBIDDEN_HEADER = /^(connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|proxy-.*)$/;

function headerProblem(headers: Readonly<Record<string, string>>, expected: ExpectedRequest) {
  const values = new Map<string, string>();
  for (const [name, value] of Object.entries(headers)) {
    const lowerCase = name.toLowerCase();
    if (FORBIDDEN_HEADER.test(lowerCase)) return 'forbidden header';
    if (values.has(lowerCase)) return 'header given twice';
    values.set(lowerCase, value);
  }
  if (values.get('host') !== expected.endpoint.host) return 'host header';
  if (!isSignedBy(values.get('authorization') ?? '', expected.signer)) return 'authorization';
  return isSessionToken(values.get('x-amz-security-token'), expected.signer) ? undefined : 'session token';
}

/** SigV4 puts key id, date, region and service of a signature in clear into the header. */
function isSignedBy(authorization: string, signer: ExpectedSigner): boolean {
  if (signer.scheme === 'bearer') return timingSafeEqual(fingerprint(authorization), signer.authorization);
  const start = `AWS4-HMAC-SHA256 Credential=${signer.accessKeyId}/`;
  const [date, end] = [start.length, start.length + 8];
  return (
    authorization.startsWith(start) &&
    /^\d{8}$/.test(authorization.slice(date, end)) &&
    authorization.startsWith(
      `/${signer.region}/${signer.service ?? 'bedrock'}/aws4_request, SignedHeaders=`,
      end,
    )
  );
}

function isSessionToken(value: string | undefined, signer: ExpectedSigner): boolean {
  const expected = signer.scheme === 'sigv4' ? signer.sessionToken : undefined;
  if (value === undefined || expected === undefined) return value === expected;
  return timingSafeEqual(fingerprint(value), expected);
}
