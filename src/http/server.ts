import type { Express } from 'express';
import { once } from 'node:events';
import type { Server as Http1Server } from 'node:http';
import type { Http2Server, ServerHttp2Session } from 'node:http2';
import net from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { cutResponse } from './protocol.ts';
import { requestListener } from './server-express.ts';
import { createHttp1 } from './server-http1.ts';
import { createHttp2 } from './server-http2.ts';
import type { ServerHooks, ServerOptions } from './server-options.ts';
import { inTurns } from './server-pipeline.ts';
import { OpenRequests } from './server-requests.ts';
import { destroyAfter, peekProtocol } from './server-sockets.ts';
import { watchStalls } from './server-stalls.ts';
import { createTlsFront } from './server-tls.ts';

export interface HttpServer {
  /** Port 0 lets the system choose. Rejects when the port cannot be had. */
  listen(port: number, host: string): Promise<{ port: number }>;
  /** Refuses new connections, ends idle ones, and tells the others to take their next request elsewhere. */
  stopAccepting(): void;
  /** Resolves when every connection is gone: by itself once its requests are answered, by force after `graceMs`. */
  close(graceMs: number): Promise<void>;
  /** Requests whose response is neither finished nor abandoned. */
  readonly openRequests: number;
}

/** How long a connection may outlive the last open request of a server that is closing. */
const LAST_BYTES_MS = 1_000;
/** For the resets of HTTP/2 to get out: a connection that just ends looks to the AWS SDK like a whole answer. */
const LAST_FRAMES_MS = 20;
/** How long an HTTP/2 connection may stay half closed. */
const HALF_CLOSED_MS = 1_000;

/** HTTP/1.1 and HTTP/2 on one port: over TLS (by ALPN) when a certificate is given, else in cleartext (by preface). */
export function createServer(app: Express, options: ServerOptions): HttpServer {
  return new DualServer(app, options);
}

class DualServer implements HttpServer {
  readonly #limits: ServerOptions['limits'];
  readonly #onError: (error: Error) => void;
  readonly #open = new OpenRequests(() => {
    this.#onRequestLeft();
  });
  readonly #http1: Http1Server;
  readonly #http2: Http2Server;
  readonly #front: net.Server;
  readonly #frontClosed: Promise<void>;
  readonly #sockets = new Set<Socket>();
  readonly #undecided = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  #draining = false;
  #closing = false;

  constructor(app: Express, options: ServerOptions) {
    this.#limits = options.limits;
    this.#onError = options.onSocketError ?? (() => undefined);
    const listener = requestListener(app, { ...options, onSocketError: this.#onError });
    const listenerHttp1 = inTurns(listener);
    const hooks: ServerHooks = {
      onError: this.#onError,
      onRequest: (req, res) => {
        this.#open.enter({ req, res });
        req.on('error', this.#onError);
        res.on('error', this.#onError);
        if (this.#draining) res.setHeader('connection', 'close');
        (req.httpVersionMajor === 2 ? listener : listenerHttp1)(req, res);
      },
    };
    this.#http1 = createHttp1(options.limits, hooks, this.#open);
    this.#http2 = createHttp2(options.limits, hooks);
    this.#http2.on('session', (session) => {
      this.#sessions.add(session);
      session.once('close', () => this.#sessions.delete(session));
    });
    this.#front = options.tls === undefined ? this.#cleartextFront() : this.#tlsFront(options.tls);
    this.#front.maxConnections = options.limits.connectionsMax;
    this.#front.on('error', this.#onError).on('connection', (socket) => {
      this.#track(socket);
    });
    this.#frontClosed = new Promise((resolve) => this.#front.once('close', resolve));
    const endWatch = watchStalls(options.limits.stallTimeoutMs, {
      sockets: this.#sockets,
      requests: () => this.#open.all(),
      onCut: this.#onError,
    });
    void this.#frontClosed.then(endWatch);
  }

  get openRequests(): number {
    return this.#open.size;
  }

  async listen(port: number, host: string): Promise<{ port: number }> {
    this.#front.listen(port, host);
    await once(this.#front, 'listening');
    return { port: (this.#front.address() as AddressInfo).port };
  }

  stopAccepting(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#front.close();
    for (const socket of this.#undecided) socket.destroy();
    for (const { res } of this.#open.all()) {
      if (!res.headersSent) res.setHeader('connection', 'close');
    }
    this.#http1.closeIdleConnections();
    // Not at once: a session made in this very tick still has its first bytes to read, and fails if it is gone by then.
    setImmediate(() => {
      for (const session of this.#sessions) session.close();
    });
  }

  async close(graceMs: number): Promise<void> {
    this.stopAccepting();
    this.#closing = true;
    this.#cutAfter(graceMs);
    this.#onRequestLeft();
    await this.#frontClosed;
    this.#http1.close(); // stops its timer
  }

  #cleartextFront(): net.Server {
    return net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.#undecided.add(socket);
      socket.once('close', () => this.#undecided.delete(socket));
      peekProtocol(socket, this.#limits.headersTimeoutMs, (protocol) => {
        this.#undecided.delete(socket);
        this.#handOver(socket, protocol);
      });
    });
  }

  #tlsFront(certificate: NonNullable<ServerOptions['tls']>): net.Server {
    const front = createTlsFront(certificate, this.#limits.headersTimeoutMs, this.#onError);
    return front.on('secureConnection', (socket) => {
      this.#track(socket);
      this.#handOver(socket, socket.alpnProtocol === 'h2' ? 'http2' : 'http1');
    });
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', this.#onError).once('close', () => this.#sockets.delete(socket));
  }

  #handOver(socket: Socket, protocol: 'http1' | 'http2'): void {
    if (this.#draining) {
      socket.destroy();
      return;
    }
    if (protocol === 'http1') {
      this.#http1.emit('connection', socket);
      return;
    }
    // HTTP/1 answers a client that has closed its half; on HTTP/2 such a client is gone.
    socket.allowHalfOpen = false;
    // A session that is done only half closes its socket, and a peer may never answer that.
    socket.once('finish', () => {
      destroyAfter(socket, HALF_CLOSED_MS);
    });
    this.#http2.emit('connection', socket);
  }

  #onRequestLeft(): void {
    if (!this.#draining) return;
    setImmediate(() => {
      this.#http1.closeIdleConnections();
    });
    if (this.#closing && this.#open.size === 0) this.#cutAfter(LAST_BYTES_MS);
  }

  /** Cuts the requests that are left so that their clients can tell, then the connections. */
  #cutAfter(ms: number): void {
    const timers = [
      setTimeout(() => {
        for (const { res } of this.#open.all()) cutResponse(res);
      }, ms),
      setTimeout(() => {
        for (const socket of this.#sockets) socket.destroy();
      }, ms + LAST_FRAMES_MS),
    ];
    void this.#frontClosed.then(() => {
      timers.forEach(clearTimeout);
    });
  }
}
