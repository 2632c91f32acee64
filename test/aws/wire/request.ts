import { createHash } from 'node:crypto';
import type { Arrival, Protocol } from './listener.ts';

/** The largest body that InvokeModel takes. */
export const BODY_BYTES_MAX = 25_000_000;
/** Beyond this the rest of an oversized body is not even read away. */
const DISCARD_BYTES_MAX = 4 * BODY_BYTES_MAX;

/** Lower-case header names to values; several of one name are joined with a comma, as SigV4 wants them. */
export type Headers = Readonly<Record<string, string>>;

/** A request as received: nothing decoded, nothing normalised. */
export interface AwsRequest {
  method: string;
  /** Path before `?`, exactly as sent. */
  path: string;
  /** Query after `?`, exactly as sent; empty when there is none. */
  query: string;
  headers: Headers;
  protocol: Protocol;
  body: Buffer;
  bodySha256: string;
  /** `too-large`: `body` holds nothing. `aborted`: the client left before the end of its body. */
  bodyState: 'whole' | 'too-large' | 'aborted';
}

/** Reads the whole request. Never throws: a client that leaves midway is a fact to journal, not a failure. */
export async function readRequest({ request, protocol }: Arrival): Promise<AwsRequest> {
  const url = request.url ?? '/';
  const mark = url.indexOf('?');
  const { body, bodyState } = await readBody(request);
  return {
    method: request.method ?? 'GET',
    path: mark < 0 ? url : url.slice(0, mark),
    query: mark < 0 ? '' : url.slice(mark + 1),
    headers: collectHeaders(request.rawHeaders),
    protocol,
    body,
    bodySha256: createHash('sha256').update(body).digest('hex'),
    bodyState,
  };
}

function collectHeaders(raw: readonly string[]): Headers {
  const headers = new Map<string, string>();
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = (raw[i] ?? '').toLowerCase();
    const value = raw[i + 1] ?? '';
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : `${before},${value}`);
  }
  return Object.fromEntries(headers);
}

async function readBody(source: AsyncIterable<unknown>): Promise<Pick<AwsRequest, 'body' | 'bodyState'>> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of source) {
      bytes += (chunk as Buffer).length;
      if (bytes <= BODY_BYTES_MAX) chunks.push(chunk as Buffer);
      else chunks.length = 0;
      if (bytes > DISCARD_BYTES_MAX) break;
    }
  } catch {
    return { body: Buffer.concat(chunks), bodyState: 'aborted' };
  }
  if (bytes > BODY_BYTES_MAX) return { body: Buffer.alloc(0), bodyState: 'too-large' };
  return { body: Buffer.concat(chunks), bodyState: 'whole' };
}
