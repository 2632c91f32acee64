import { randomUUID } from 'node:crypto';
import http from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { ServiceError } from '../domain/errors.ts';
import { holdContinue } from './protocol.ts';
import { rawProblem } from './problem.ts';
import { destroyAfter } from './server-sockets.ts';
import type { OpenRequests } from './server-requests.ts';
import type { ServerHooks, ServerLimits } from './server-options.ts';

/** Node looks for expired requests this often at most; a timeout may be late by as much (docs/security.md). */
const EXPIRY_CHECK_MS = 5_000;
/** Spreads long-lived clients over new replicas (docs/security.md). */
const REQUESTS_PER_SOCKET_MAX = 1_000;
/** How long an answered client may go on sending before it is cut off: nginx's default (`lingering_time`). */
const LINGER_MS = 30_000;
/** The same after bytes that are not HTTP: a round trip, so that the answer is read. */
const LINGER_AFTER_GARBAGE_MS = 1_000;

/**
 * The HTTP/1.1 half. It never listens: server.ts hands it connections.
 * What Node would answer on its own with an empty body is answered with a problem document.
 */
export function createHttp1(limits: ServerLimits, hooks: ServerHooks, open: OpenRequests): http.Server {
  const server = http.createServer({
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    connectionsCheckingInterval: Math.min(EXPIRY_CHECK_MS, limits.headersTimeoutMs),
    maxHeaderSize: limits.headerBytesMax,
    requireHostHeader: false, // guardRequest answers this
  });
  server.maxRequestsPerSocket = REQUESTS_PER_SOCKET_MAX;
  server.on('request', hooks.onRequest).on('checkExpectation', hooks.onRequest);
  server.on('checkContinue', (req, res) => {
    holdContinue(req, res);
    hooks.onRequest(req, res);
  });
  server.on('connection', (socket) => {
    letAnswersArrive(socket, open);
    closeQueuedResponses(socket, open);
  });
  server.on('connect', (_req, socket) => {
    refuseRaw(socket, NO_TUNNEL);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    Reflect.deleteProperty(error, 'rawPacket'); // the client's bytes, token and all: not for any log
    hooks.onError(error);
    const refusal = refusalOf(error.code ?? '');
    const started = open.on(socket).some(({ res }) => res.headersSent);
    if (refusal === undefined || started || !socket.writable) socket.destroy();
    else refuseRaw(socket, refusal);
  });
  server.on('error', hooks.onError);
  // Node begins to watch headersTimeout and requestTimeout when the server listens, which this one never does.
  server.emit('listening');
  return server;
}

interface RawRefusal {
  status: number;
  error: ServiceError;
}

const NO_TUNNEL = {
  status: 405,
  error: new ServiceError('route.method_not_allowed', 'This server opens no tunnels.'),
};
const NOT_HTTP = {
  status: 400,
  error: new ServiceError('request.invalid', 'The request is not well-formed HTTP/1.1.'),
};
const RAW_REFUSALS: Partial<Record<string, RawRefusal>> = {
  HPE_HEADER_OVERFLOW: {
    status: 431,
    error: new ServiceError('request.invalid', 'The request line and headers are too long.'),
  },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: {
    status: 413,
    error: new ServiceError('request.too_large', 'The chunk extensions are too long.'),
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    status: 408,
    error: new ServiceError('request.timeout', 'The request did not arrive in time.'),
  },
};

/** Undefined for errors of the connection itself (reset, broken pipe): nobody is left to answer. */
function refusalOf(code: string): RawRefusal | undefined {
  return RAW_REFUSALS[code] ?? (code.startsWith('HPE_') ? NOT_HTTP : undefined);
}

/** Answers on the bare socket, once, and closes it after the client had time to read. */
function refuseRaw(socket: Duplex, refusal: RawRefusal): void {
  const reason = http.STATUS_CODES[refusal.status] ?? 'Error';
  socket.end(rawProblem(refusal.error, randomUUID(), refusal.status, reason));
  destroyAfter(socket, LINGER_AFTER_GARBAGE_MS);
}

/**
 * Closing a socket while the client is still sending makes the kernel reset the connection, and the reset can overtake
 * our answer. So when Node wants to close after the last answer, an unfinished request is first read away.
 */
function letAnswersArrive(socket: Socket, open: OpenRequests): void {
  const destroySoon = socket.destroySoon.bind(socket);
  socket.destroySoon = (): void => {
    const unfinished = open.on(socket).find(({ req }) => !req.complete);
    if (unfinished === undefined) {
      destroySoon();
      return;
    }
    socket.end();
    unfinished.req.once('end', destroySoon).resume();
    destroyAfter(socket, LINGER_MS);
  };
}

/** Node closes only the response whose turn it is; those of pipelined requests behind it would never learn of the end. */
function closeQueuedResponses(socket: Socket, open: OpenRequests): void {
  socket.once('close', () => {
    setImmediate(() => {
      for (const { res } of open.on(socket)) res.emit('close');
    });
  });
}
