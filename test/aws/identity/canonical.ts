import { createHash, createHmac } from 'node:crypto';
import type { AwsRequest } from '../wire/request.ts';

/** The parts of an `Authorization: AWS4-HMAC-SHA256 ...` header. */
export interface SignatureClaim {
  accessKeyId: string;
  date: string;
  region: string;
  service: string;
  /** Lower case, as listed by the client. */
  signedHeaders: readonly string[];
  signature: string;
}

const FORM =
  /^AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)\/(\d{8})\/([^/,\s]+)\/([^/,\s]+)\/aws4_request,\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})$/;

export function parseClaim(authorization: string): SignatureClaim | undefined {
  const [, accessKeyId, date, region, service, signed, signature] = FORM.exec(authorization.trim()) ?? [];
  if (!accessKeyId || !date || !region || !service || !signed || !signature) return undefined;
  return { accessKeyId, date, region, service, signedHeaders: signed.split(';'), signature };
}

/** The signature that the holder of `secret` would have put on this request, in hex (AWS General Reference, "SigV4"). */
export function expectedSignature(request: AwsRequest, claim: SignatureClaim, secret: string): string {
  const stringToSign = [
    'AWS4-HMAC-SHA256',
    request.headers['x-amz-date'] ?? '',
    `${claim.date}/${claim.region}/${claim.service}/aws4_request`,
    createHash('sha256').update(canonicalRequest(request, claim.signedHeaders)).digest('hex'),
  ].join('\n');
  let key: Buffer = Buffer.from(`AWS4${secret}`);
  for (const part of [claim.date, claim.region, claim.service, 'aws4_request']) key = hmac(key, part);
  return hmac(key, stringToSign).toString('hex');
}

function canonicalRequest(request: AwsRequest, signedHeaders: readonly string[]): string {
  const headers = [...signedHeaders].sort().map((name) => `${name}:${headerValue(request, name)}`);
  return [
    request.method,
    canonicalPath(request.path),
    canonicalQuery(request.query),
    ...headers,
    '',
    signedHeaders.join(';'),
    request.bodySha256,
  ].join('\n');
}

/** Each segment of the raw path is percent-encoded again, so `%3A` becomes `%253A`; empty and dot segments go. */
function canonicalPath(path: string): string {
  const kept: string[] = [];
  for (const segment of path.split('/')) {
    if (segment === '..') kept.pop();
    else if (segment !== '' && segment !== '.') kept.push(encode(segment));
  }
  return `/${kept.join('/')}${kept.length > 0 && path.endsWith('/') ? '/' : ''}`;
}

function canonicalQuery(query: string): string {
  const pairs = query.split('&').filter((pair) => pair !== '');
  const encoded = pairs.map((pair) => {
    const [name = '', ...value] = pair.split('=');
    return [encode(decode(name)), encode(decode(value.join('=')))] as const;
  });
  encoded.sort(([a, x], [b, y]) => compare(a, b) || compare(x, y));
  return encoded.map(([name, value]) => `${name}=${value}`).join('&');
}

/** On HTTP/2 the JavaScript SDK signs `:authority` by that name; other signers sign `host`, which HTTP/2 carries as `:authority`. */
function headerValue({ headers }: AwsRequest, name: string): string {
  const value = headers[name] ?? (name === 'host' ? headers[':authority'] : undefined) ?? '';
  return value.trim().replace(/\s+/g, ' ');
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
