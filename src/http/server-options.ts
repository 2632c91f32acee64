import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Refusal } from './protocol.ts';

/** See docs/security.md for the defaults and their reasons. */
export interface ServerLimits {
  /** From the connection (or the previous answer) to the end of the headers; on HTTP/2 to the first request. */
  headersTimeoutMs: number;
  /** From the first byte to the end of the body, on HTTP/1; on HTTP/2 readBody keeps the time. */
  requestTimeoutMs: number;
  /** Without any request on the connection. More than the idle timeout of the load balancer in front. */
  keepAliveTimeoutMs: number;
  /** How long the reader of an answer may take nothing of it before it is cut. */
  stallTimeoutMs: number;
  headerBytesMax: number;
  /** Further connections are closed at once. */
  connectionsMax: number;
  /** Per HTTP/2 connection. */
  maxConcurrentStreams: number;
}

export interface ServerOptions {
  tls?: { cert: string | Buffer; key: string | Buffer };
  limits: ServerLimits;
  /** Broken connections, bytes that are not HTTP, failed handshakes: ordinary life. Never carries bytes of the client. */
  onSocketError?: (error: Error) => void;
  /** A request that was answered without reaching the app, so that its id leads somewhere. */
  onRefused?: (refusal: Refusal & { requestId: string; remoteAddress: string | undefined }) => void;
}

/** What the two protocol halves call back. */
export interface ServerHooks {
  onRequest: (req: IncomingMessage, res: ServerResponse) => void;
  onError: (error: Error) => void;
}
