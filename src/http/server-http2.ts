import http2, { Http2ServerResponse, constants } from 'node:http2';
import type { Http2Server, Http2ServerRequest, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { holdContinue } from './protocol.ts';
import type { ServerHooks, ServerLimits } from './server-options.ts';

/**
 * Bytes that a client may have under way, per stream and per connection: at 50 ms of round trip 5 MB/s, where the
 * protocol's 64 KiB gives 1.3 MB/s. It is also what an unread connection may cost in memory.
 */
const WINDOW_BYTES = 262_144;
/** Of a large answer this much is written at a time, so that it shows how far the client has taken it: four frames. */
const PIECE_BYTES = 65_536;
/** How long a client may go on uploading after it has its answer. */
const GOODBYE_MS = 1_000;
/** RFC 9113 section 8.2.2: Node throws for these, although they only ever describe an HTTP/1 connection. */
const CONNECTION_HEADERS = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);

/** The HTTP/2 half, for cleartext and TLS alike. It never listens: server.ts hands it connections. */
export function createHttp2(limits: ServerLimits, hooks: ServerHooks): Http2Server {
  const server = http2.createServer({
    Http2ServerResponse: TolerantHttp2Response,
    settings: {
      maxConcurrentStreams: limits.maxConcurrentStreams,
      maxHeaderListSize: limits.headerBytesMax,
      initialWindowSize: WINDOW_BYTES,
    },
  });
  const onRequest = (req: Http2ServerRequest, res: Http2ServerResponse): void => {
    stopUploadAfterAnswer(res.stream);
    hooks.onRequest(req as unknown as IncomingMessage, res as unknown as ServerResponse);
  };
  for (const event of ['request', 'connect', 'checkExpectation']) server.on(event, onRequest);
  server.on('checkContinue', (req: Http2ServerRequest, res: Http2ServerResponse) => {
    holdContinue(req as unknown as IncomingMessage, res as unknown as ServerResponse);
    onRequest(req, res);
  });
  server.on('session', (session) => {
    session.setLocalWindowSize(WINDOW_BYTES);
    closeWhenIdle(session, limits);
  });
  server.on('stream', (stream) => stream.on('error', hooks.onError));
  server.on('sessionError', hooks.onError).on('error', hooks.onError);
  return server;
}

/** A connection without requests is closed: after headersTimeoutMs when it never made one, else after keepAliveTimeoutMs. */
function closeWhenIdle(session: ServerHttp2Session, limits: ServerLimits): void {
  const closeAfter = (ms: number): NodeJS.Timeout =>
    setTimeout(() => {
      session.close();
    }, ms);
  let streams = 0;
  let timer = closeAfter(limits.headersTimeoutMs);
  session.on('stream', (stream) => {
    streams += 1;
    clearTimeout(timer);
    stream.once('close', () => {
      streams -= 1;
      if (streams === 0 && !session.closed) timer = closeAfter(limits.keepAliveTimeoutMs);
    });
  });
  session.once('close', () => {
    clearTimeout(timer);
  });
}

/** A client that goes on sending a body after our answer was complete is told to stop (RFC 9113 section 8.1). */
function stopUploadAfterAnswer(stream: ServerHttp2Stream): void {
  if (stream.endAfterHeaders) return;
  stream.once('finish', () => {
    if (stream.readableEnded) return;
    const timer = setTimeout(() => {
      stream.close(constants.NGHTTP2_NO_ERROR);
    }, GOODBYE_MS);
    stream.once('close', () => {
      clearTimeout(timer);
    });
  });
}

/** Ignores what HTTP/2 forbids, so that one Express app serves both protocols; writes a whole answer as its client takes it. */
export class TolerantHttp2Response<
  Request extends Http2ServerRequest = Http2ServerRequest,
> extends Http2ServerResponse<Request> {
  /** Of an answer that was ended: what shows that its client goes on taking it. */
  piecesTaken = 0;

  override write(...args: unknown[]): boolean {
    return !this.writableEnded && super.write(...(args as [string]));
  }

  override end(...args: unknown[]): this {
    if (this.writableEnded) return this;
    const [body] = args;
    if (!Buffer.isBuffer(body) || body.length <= PIECE_BYTES || !this.#takesBody)
      return super.end(...(args as [string]));
    if (!this.headersSent) this.writeHead(this.statusCode);
    const whenDone = args.find((arg) => typeof arg === 'function') as (() => void) | undefined;
    if (whenDone !== undefined) this.once('finish', whenDone);
    // To everyone else it has ended, as any answer that Node still has to write.
    Object.defineProperty(this, 'writableEnded', { value: true });
    Readable.from(this.#piecesOf(body), { highWaterMark: 1 }).pipe(this.stream);
    return this;
  }

  get #takesBody(): boolean {
    return this.req.method !== 'HEAD' && !this.stream.destroyed && !this.stream.closed;
  }

  override setHeader(name: string, value: number | string | readonly string[]): void {
    if (isAllowed(name)) super.setHeader(name, value);
  }

  override appendHeader(name: string, value: string | string[]): void {
    if (isAllowed(name)) super.appendHeader(name, value);
  }

  override writeHead(status: number, ...phraseAndHeaders: unknown[]): this {
    const headers = phraseAndHeaders.at(-1);
    if (typeof headers !== 'object' || headers === null) return super.writeHead(status);
    return super.writeHead(status, withoutConnectionHeaders(headers));
  }

  *#piecesOf(body: Buffer): Generator<Buffer> {
    for (let at = 0; at < body.length; at += PIECE_BYTES) {
      this.piecesTaken += 1;
      yield body.subarray(at, at + PIECE_BYTES);
    }
  }
}

function isAllowed(name: string): boolean {
  return !CONNECTION_HEADERS.has(name.trim().toLowerCase());
}

/** `headers` is an object, or names and values in turn. */
function withoutConnectionHeaders(headers: object): OutgoingHttpHeaders {
  if (Array.isArray(headers)) {
    const list = headers as unknown[];
    return list.filter((_, index) =>
      isAllowed(String(list[index - (index % 2)])),
    ) as unknown as OutgoingHttpHeaders;
  }
  return Object.fromEntries(
    Object.entries(headers as OutgoingHttpHeaders).filter(([name]) => isAllowed(name)),
  );
}
