import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** One request as it arrived. */
export interface Received {
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
  /** The event in it. */
  json: { type: string; timestamp: string; data: Record<string, unknown> };
}

type Behaviour = number | ((response: ServerResponse, request: Received) => void);

/** A receiver of webhooks on loopback. Answers 200, but for what it was told before. */
export interface Receiver extends AsyncDisposable {
  url: string;
  seen: Received[];
  /** What comes next on a path, in order; the last one stays. */
  will(path: string, ...behaviours: Behaviour[]): void;
  at(path: string): Received[];
}

export async function startReceiver(): Promise<Receiver> {
  const seen: Received[] = [];
  const plans = new Map<string, Behaviour[]>();
  const server = createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      const body = Buffer.concat(pieces).toString('utf8');
      const { headers, url: path = '' } = request;
      const received = { path, headers, body, json: JSON.parse(body) as Received['json'] };
      seen.push(received);
      const plan = plans.get(path) ?? [];
      const behaviour = (plan.length > 1 ? plan.shift() : plan[0]) ?? 200;
      if (typeof behaviour === 'number') response.writeHead(behaviour).end();
      else behaviour(response, received);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`,
    seen,
    will: (path, ...behaviours) => void plans.set(path, behaviours),
    at: (path) => seen.filter((received) => received.path === path),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** What a receiver checks (Standard Webhooks), written from the specification and not from our code. */
export function isSigned({ headers, body }: Received, secret: string): boolean {
  const [id, timestamp, signatures] = ['id', 'timestamp', 'signature'].map((name) =>
    String(headers[`webhook-${name}`]),
  );
  if (!/^whsec_[A-Za-z0-9+/]{43}=$/.test(secret)) throw new Error('not a secret of 32 bytes');
  if (Math.abs(Date.now() / 1_000 - Number(timestamp)) > 300) return false;
  const key = Buffer.from(secret.slice('whsec_'.length), 'base64');
  const expected = createHmac('sha256', key)
    .update(`${String(id)}.${String(timestamp)}.${body}`)
    .digest('base64');
  return (signatures ?? '').split(' ').includes(`v1,${expected}`);
}
