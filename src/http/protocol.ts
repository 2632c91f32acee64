import { constants } from 'node:http2';
import type { ServerHttp2Stream } from 'node:http2';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ServiceError } from '../domain/errors.ts';
import type { ServiceErrorOptions } from '../domain/errors.ts';

/** A request that is refused before Express sees it. `status` may be finer than the catalogue's row for the code. */
export interface Refusal {
  status: number;
  error: ServiceError;
}

export const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;
/** SDKs send 10 to 20 headers, a proxy chain adds some ten more. */
const HEADERS_MAX = 64;
/** An inference profile ARN percent-encoded twice is under 1 KiB; page tokens of AWS reach 2 KiB. */
const TARGET_LENGTH_MAX = 8_192;
/** Read to the end and thrown away rather than losing the connection: about one TCP window. */
const UNREAD_BYTES_MAX = 65_536;
/** Node keeps the first of these and drops the rest silently, so that we and a proxy could each believe another one. */
const SINGLE_HEADERS = ['authorization', 'content-length', 'host', 'transfer-encoding'];
/** Visible ASCII without `#`; parsers disagree on all else. */
const TARGET_PATTERN = /^\/[\x21\x22\x24-\x7e]*$/;

type Check = (req: IncomingMessage, headerBytesMax: number) => Refusal | undefined;
const CHECKS: readonly Check[] = [checkMethod, checkTarget, checkHeaders, checkFraming, checkHost];

/**
 * Refuses what two HTTP parsers could read differently, and brings the rest to one form:
 * runs of `/` in the path become one (clients with a base path that ends in `/` send them; percent-encodings and
 * the query are not touched), and on HTTP/2 `Host` is the `:authority`.
 */
export function guardRequest(req: IncomingMessage, headerBytesMax: number): Refusal | undefined {
  for (const check of CHECKS) {
    const refusal = check(req, headerBytesMax);
    if (refusal !== undefined) return refusal;
  }
  req.url = normalisePath(req.url ?? '/');
  return undefined;
}

export function normalisePath(target: string): string {
  const query = target.indexOf('?');
  const path = query === -1 ? target : target.slice(0, query);
  if (!path.includes('//')) return target;
  return path.replace(/\/{2,}/g, '/') + (query === -1 ? '' : target.slice(query));
}

/**
 * Ends a response that cannot be finished so that the client notices. On HTTP/2 this needs an error code: a stream
 * destroyed without one looks like a clean end to the AWS SDK for JavaScript.
 */
export function cutResponse(res: ServerResponse): void {
  const stream = streamOf(res);
  if (stream === undefined) res.destroy();
  else stream.close(constants.NGHTTP2_INTERNAL_ERROR);
}

/** True when the client is (or may be) still sending more of a body than is worth reading away. HTTP/1 only. */
export function hasLargeUnreadBody(req: IncomingMessage): boolean {
  if (req.httpVersionMajor !== 1 || req.complete) return false;
  if (req.headers['transfer-encoding'] !== undefined) return true;
  return Number(req.headers['content-length'] ?? 0) > UNREAD_BYTES_MAX;
}

const heldContinues = new WeakMap<IncomingMessage, ServerResponse>();

/** For `Expect: 100-continue`: the body is invited by its reader and not before, so a refused request uploads nothing. */
export function holdContinue(req: IncomingMessage, res: ServerResponse): void {
  heldContinues.set(req, res);
}

/** Sends the `100 Continue` that the client waits for, if it does. */
export function sendContinue(req: IncomingMessage): void {
  heldContinues.get(req)?.writeContinue();
  heldContinues.delete(req);
}

function streamOf(res: ServerResponse): ServerHttp2Stream | undefined {
  return (res as ServerResponse & { stream?: ServerHttp2Stream }).stream;
}

function refuse(status: number, detail: string, options: ServiceErrorOptions = {}): Refusal {
  return { status, error: new ServiceError('request.invalid', detail, options) };
}

function checkMethod(req: IncomingMessage): Refusal | undefined {
  if ((METHODS as readonly (string | undefined)[]).includes(req.method)) return undefined;
  const error = new ServiceError('route.method_not_allowed', `Use one of ${METHODS.join(', ')}.`);
  // RFC 9110: 405 for a method that exists and is refused, 501 for one that is not known here.
  return { status: req.method === 'TRACE' || req.method === 'CONNECT' ? 405 : 501, error };
}

function checkTarget(req: IncomingMessage): Refusal | undefined {
  const target = req.url ?? '';
  if (target.length > TARGET_LENGTH_MAX) {
    return refuse(414, `The request target is longer than ${String(TARGET_LENGTH_MAX)} characters.`);
  }
  const path = target.split('?', 1)[0] ?? '';
  if (!TARGET_PATTERN.test(target) || path.includes('\\')) {
    return refuse(
      400,
      'The request target must be an absolute path in ASCII, without scheme, host or fragment.',
    );
  }
  return isDecodable(path) ? undefined : refuse(400, 'The path is not well-formed percent-encoded UTF-8.');
}

function isDecodable(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}

function checkHeaders(req: IncomingMessage, headerBytesMax: number): Refusal | undefined {
  // The parser of HTTP/1 counts for itself; on HTTP/2 the limit binds only clients that confirm our SETTINGS.
  if (req.rawHeaders.join('').length > headerBytesMax) return refuse(431, 'The headers are too long.');
  const names = req.rawHeaders.filter((_, index) => index % 2 === 0).filter((name) => !name.startsWith(':'));
  if (names.length > HEADERS_MAX)
    return refuse(431, `The request has more than ${String(HEADERS_MAX)} headers.`);
  const lowerNames = names.map((name) => name.toLowerCase());
  const doubled = SINGLE_HEADERS.find((name) => lowerNames.indexOf(name) !== lowerNames.lastIndexOf(name));
  if (doubled === undefined) return undefined;
  const options = doubled === 'authorization' ? ({ challenge: 'invalid_request' } as const) : {};
  return refuse(400, `The header ${doubled} was sent more than once.`, options);
}

function checkFraming(req: IncomingMessage): Refusal | undefined {
  const expect = req.headers.expect;
  if (expect !== undefined && expect.toLowerCase() !== '100-continue')
    return refuse(417, 'Expect may only be "100-continue".');
  const encoding = req.headers['transfer-encoding'];
  if (encoding === undefined) return undefined;
  if (encoding.trim().toLowerCase() !== 'chunked')
    return refuse(400, 'Transfer-Encoding may only be "chunked".');
  if (req.headers['content-length'] === undefined) return undefined;
  return refuse(400, 'Content-Length and Transfer-Encoding were both sent.');
}

/** Required from HTTP/1.1 on; health checks in HTTP/1.0 have none. */
function checkHost(req: IncomingMessage): Refusal | undefined {
  const authority = req.headers[':authority'];
  if (typeof authority === 'string' && authority !== '') {
    if ((req.headers.host ?? authority) !== authority) return refuse(400, 'Host and :authority differ.');
    req.headers.host = authority;
  }
  if (req.headers.host !== undefined || req.httpVersion === '1.0') return undefined;
  return refuse(400, 'The request names no host.');
}
