/**
 * The least that can stand between a client and Bedrock: reads the body, signs it, passes both ways on. No caller, no merchant, no vault, no
 * ledger, no audit, no limits. What it costs is the floor; what the service costs more is the price of what the service does.
 * Takes its orders from the command line: PORT-OF-THE-UPSTREAM ACCESS-KEY-ID SECRET REGION; says its port over IPC.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';
import type { Dispatcher } from 'undici';
import { Signer } from './sigv4.ts';

const [upstreamPort = '', accessKeyId = '', secretAccessKey = '', region = ''] = process.argv.slice(2);
const host = `127.0.0.1:${upstreamPort}`;
const pool = new Pool(`http://${host}`, { connections: 1_024, pipelining: 1 });
const signer = new Signer({ accessKeyId, secretAccessKey, region });
/** They belong to one connection, not to the answer. */
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding']);

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    forward(request, Buffer.concat(chunks), response);
  });
});
server.listen(0, '127.0.0.1', () => {
  process.send?.({ port: (server.address() as AddressInfo).port });
});
process.on('disconnect', () => process.exit());
process.on('SIGTERM', () => process.exit());

function forward(request: IncomingMessage, body: Buffer, response: ServerResponse): void {
  const path = request.url ?? '/';
  const contentType = request.headers['content-type'] ?? 'application/json';
  const headers = signer.sign({ method: 'POST', host, path, contentType, body });
  pool.dispatch({ method: 'POST', path, headers, body }, relay(response));
}

function relay(response: ServerResponse): Dispatcher.DispatchHandlers {
  return {
    onConnect: (abort) => {
      response.on('close', () => {
        if (!response.writableFinished) abort();
      });
    },
    onHeaders: (status, raw, resume) => {
      const headers = raw.map(String);
      response.writeHead(
        status,
        headers.filter((_, index) => !HOP_BY_HOP.has((headers[index - (index % 2)] ?? '').toLowerCase())),
      );
      response.on('drain', resume);
      return true;
    },
    onData: (chunk) => response.write(chunk),
    onComplete: () => {
      response.end();
    },
    onError: () => {
      if (response.headersSent) response.destroy();
      else response.writeHead(502, { 'content-length': '0' }).end();
    },
  };
}
