import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import { Readable } from 'node:stream';
import { runInThisContext } from 'node:vm';
import type { Express } from 'express';
import { createServer } from '../../src/http/server.ts';
import type { HttpServer } from '../../src/http/server.ts';
import type { ServerLimits, ServerOptions } from '../../src/http/server-options.ts';
import { eventually } from '../support/until.ts';

export const LIMITS: ServerLimits = {
  headersTimeoutMs: 5_000,
  requestTimeoutMs: 10_000,
  keepAliveTimeoutMs: 5_000,
  stallTimeoutMs: 60_000,
  headerBytesMax: 16_384,
  connectionsMax: 200,
  maxConcurrentStreams: 100,
};

export interface RunningServer extends AsyncDisposable {
  server: HttpServer;
  port: number;
  /** What went to onSocketError. */
  errors: Error[];
}

export async function startServer(
  app: Express,
  options: Omit<Partial<ServerOptions>, 'limits'> & { limits?: Partial<ServerLimits> } = {},
): Promise<RunningServer> {
  const errors: Error[] = [];
  const server = createServer(app, {
    onSocketError: (error) => errors.push(error),
    ...options,
    limits: { ...LIMITS, ...options.limits },
  });
  const { port } = await server.listen(0, '127.0.0.1');
  return { server, port, errors, [Symbol.asyncDispose]: () => server.close(0) };
}

/** Everything that would have killed the process since the first import. Jest hides the real `process` from tests. */
export const uncaught: unknown[] = [];
const realProcess = runInThisContext('process') as NodeJS.Process;
for (const event of ['uncaughtException', 'unhandledRejection']) {
  realProcess.on(event, (error: unknown) => uncaught.push(error));
}

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
}

export interface Ask {
  path?: string;
  method?: string;
  headers?: http.OutgoingHttpHeaders;
  body?: Buffer | undefined;
}

/** One request on a connection of its own. */
export const CLIENTS = {
  'HTTP/1.1': (port: number, ask: Ask) => askHttp1(http.request(toHttp1(port, ask)), ask),
  'HTTP/1.1 over TLS': (port: number, ask: Ask) =>
    askHttp1(https.request({ ...toHttp1(port, ask), rejectUnauthorized: false }), ask),
  'HTTP/2': (port: number, ask: Ask) => askHttp2(http2.connect(`http://127.0.0.1:${String(port)}`), ask),
  'HTTP/2 over TLS': (port: number, ask: Ask) =>
    askHttp2(http2.connect(`https://127.0.0.1:${String(port)}`, { rejectUnauthorized: false }), ask),
};
export type ClientName = keyof typeof CLIENTS;

function toHttp1(port: number, { path = '/', method = 'GET', headers = {} }: Ask): http.RequestOptions {
  return { host: '127.0.0.1', port, path, method, headers, agent: false };
}

async function askHttp1(request: http.ClientRequest, { body }: Ask): Promise<Answer> {
  request.on('error', () => undefined).end(body); // a connection may be reset after its answer
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  return { status: response.statusCode ?? 0, headers: response.headers, body: await readAll(response) };
}

async function askHttp2(session: http2.ClientHttp2Session, ask: Ask): Promise<Answer> {
  const { path = '/', method = 'GET', headers = {}, body } = ask;
  session.on('error', () => undefined);
  const stream = session.request(
    { ':path': path, ':method': method, ...headers },
    { endStream: body === undefined },
  );
  if (body !== undefined) Readable.from(inPieces(body)).pipe(stream); // all at once is more than Node's client allows itself
  try {
    const [head] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
    return { status: Number(head[':status']), headers: head, body: await readAll(stream) };
  } finally {
    session.close();
  }
}

function* inPieces(body: Buffer): Generator<Buffer> {
  for (let at = 0; at < body.length; at += 262_144) yield body.subarray(at, at + 262_144);
}

export async function readAll(readable: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of readable) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/**
 * Writes bytes as they are and returns what came back until the server closed, or there was `enough` of it, or `ms` passed.
 * @param options.enough is given what came back so far
 */
export async function exchangeRaw(
  port: number,
  parts: (string | Buffer)[],
  { enough = () => false, ms = 20_000 }: { enough?: (received: Buffer) => boolean; ms?: number } = {},
): Promise<string> {
  const socket = net.connect({ port, host: '127.0.0.1', noDelay: true });
  const received: Buffer[] = [];
  socket.on('data', (chunk) => received.push(chunk));
  socket.on('error', () => undefined);
  let closed = false;
  socket.once('close', () => (closed = true));
  for (const part of parts) {
    socket.write(part);
    await sleep(5);
  }
  await eventually(
    () => closed || enough(Buffer.concat(received)),
    (so) => so,
    { limitMs: ms, everyMs: 5 },
  );
  socket.destroy();
  return Buffer.concat(received).toString();
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
