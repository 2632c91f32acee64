import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import type { Readable } from 'node:stream';
import { wholeFrames } from '../../src/bedrock/event-stream.ts';
import type { Frame } from '../../src/bedrock/event-stream.ts';

export type Protocol = 'h1' | 'h2';

/** One request whose answer is read as it comes. */
export interface RawStream {
  status: number;
  /** `x-bedrock-call-id` of the answer. */
  callId: string | undefined;
  /** Whether the body has ended, and what came until now. */
  hasEnded: () => boolean;
  soFar: () => Buffer;
  /** The whole body; rejects when it was cut instead of ended. */
  ended: Promise<Buffer>;
  /** Once this many bytes have come. */
  until(bytes: number): Promise<void>;
  leave(): void;
}

export interface RawRequest {
  url: string;
  path: string;
  headers: Record<string, string>;
  body: unknown;
}

/** Posts JSON, and comes back with the headers of the answer. */
export async function openStream(protocol: Protocol, request: RawRequest): Promise<RawStream> {
  const body = Buffer.from(JSON.stringify(request.body));
  const headers = { 'content-type': 'application/json', 'content-length': body.length, ...request.headers };
  if (protocol === 'h1') {
    const { hostname, port } = new URL(request.url);
    const sent = http.request({ hostname, port, path: request.path, method: 'POST', headers, agent: false });
    sent.end(body);
    const [answer] = (await once(sent, 'response')) as [http.IncomingMessage];
    return follow(answer, { ...answer.headers, ':status': String(answer.statusCode) }, () => sent.destroy());
  }
  const session = http2.connect(request.url);
  session.on('error', () => undefined);
  const stream = session.request({ ':method': 'POST', ':path': request.path, ...headers });
  stream.end(body);
  const [head] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
  stream.once('close', () => {
    session.close();
  });
  return follow(stream, head, () => {
    session.destroy();
  });
}

function follow(source: Readable, head: http2.IncomingHttpHeaders, leave: () => void): RawStream {
  const chunks: Buffer[] = [];
  const length = () => chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  let over = false;
  source.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = new Promise<Buffer>((resolve, reject) => {
    source.once('end', () => {
      resolve(Buffer.concat(chunks));
    });
    source.once('error', reject);
    source.once('close', () => {
      over = true;
      reject(new Error('cut'));
    });
  });
  ended.catch(() => undefined);
  return {
    status: Number(head[':status']),
    callId: head['x-bedrock-call-id'] as string | undefined,
    hasEnded: () => over,
    soFar: () => Buffer.concat(chunks),
    ended,
    until: async (bytes) => {
      while (length() < bytes && !over) await Promise.race([once(source, 'data'), once(source, 'close')]);
    },
    leave,
  };
}

/** The last frame of an event stream of AWS. */
export async function lastFrame(body: Buffer): Promise<Frame | undefined> {
  async function* whole() {
    yield await Promise.resolve(body);
  }
  let last: Frame | undefined;
  for await (const frame of wholeFrames(whole(), { frameBytesMax: 1_000_000 })) last = frame;
  return last;
}
