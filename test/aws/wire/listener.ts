import { createServer as createHttp1 } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { createServer } from 'node:net';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse, Http2Session } from 'node:http2';
import type { AddressInfo, Server, Socket } from 'node:net';

export type Protocol = 'h1' | 'h2';

/** One request and the means to answer it, whichever protocol it came by. */
export interface Arrival {
  request: IncomingMessage | Http2ServerRequest;
  response: ServerResponse | Http2ServerResponse;
  protocol: Protocol;
  /** The connection underneath: destroying it is how a cut looks to the client. */
  socket: Socket | undefined;
}

export interface Listener {
  url: string;
  close(): Promise<void>;
}

/** What every cleartext HTTP/2 client sends first; no HTTP/1.1 method begins like this. */
const HTTP2_PREFACE = 'PRI ';

/**
 * HTTP/1.1 and cleartext HTTP/2 (prior knowledge) on one loopback port, because the JavaScript Bedrock client speaks only the
 * second and every other client only the first.
 */
export async function listen(port: number, onArrival: (arrival: Arrival) => void): Promise<Listener> {
  const sockets = new Set<Socket>();
  const choose = protocolChooser(onArrival);
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    choose(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const { port: actual } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${String(actual)}`, close: () => closeAll(server, sockets) };
}

function protocolChooser(onArrival: (arrival: Arrival) => void): (socket: Socket) => void {
  const socketOf = new WeakMap<Http2Session, Socket>();
  const http1 = createHttp1({ keepAliveTimeout: 60_000 }, (request, response) => {
    onArrival({ request, response, protocol: 'h1', socket: request.socket });
  });
  const http2 = createHttp2((request, response) => {
    const session = response.stream.session;
    onArrival({ request, response, protocol: 'h2', socket: session && socketOf.get(session) });
  });
  http2.on('sessionError', () => undefined);
  return (socket) => {
    peek(socket, (isHttp2) => {
      if (!isHttp2) return http1.emit('connection', socket);
      // A session does not notice the end of a socket that may stay half open; http.Server wants such sockets.
      socket.allowHalfOpen = false;
      http2.once('session', (session) => socketOf.set(session, socket));
      return http2.emit('connection', socket);
    });
  };
}

/** Reads just enough to know the protocol, and puts the bytes back. */
function peek(socket: Socket, then: (isHttp2: boolean) => void): void {
  socket.once('readable', () => {
    const bytes = socket.read() as Buffer | null;
    if (bytes === null) return void socket.destroy();
    const start = bytes.toString('latin1', 0, HTTP2_PREFACE.length);
    socket.unshift(bytes);
    if (start.length < HTTP2_PREFACE.length && HTTP2_PREFACE.startsWith(start)) {
      setTimeout(() => {
        peek(socket, then);
      }, 1).unref();
      return;
    }
    then(start === HTTP2_PREFACE);
  });
}

function closeAll(server: Server, sockets: ReadonlySet<Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve();
    });
    for (const socket of sockets) socket.destroy();
  });
}
