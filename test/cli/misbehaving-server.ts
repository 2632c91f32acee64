import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface MisbehavingServer extends AsyncDisposable {
  url: string;
  /** Requests that came in, as `POST /path`. */
  readonly requests: readonly string[];
}

interface Received {
  authorization: string;
  body: string;
}

type Behaviour = (res: ServerResponse, received: Received) => void;

/** What it does with an order, by the merchant's id. */
const BEHAVIOURS: Readonly<Record<string, Behaviour>> = {
  'sent-elsewhere': (res) => {
    res.writeHead(307, { location: '/elsewhere' }).end();
  },
  'no-such-page': (res) => {
    res.writeHead(404, { 'content-type': 'text/html' }).end('<html>nginx</html>');
  },
  'bad-gateway': (res) => {
    res.writeHead(502, { 'content-type': 'text/html' }).end('<html>nginx</html>');
  },
  'breaks-off': (res) => {
    res.socket?.destroy();
  },
  'half-an-answer': (res) => {
    res.writeHead(201, { 'content-type': 'application/json', 'content-length': '1000' });
    res.write('{"merchantId":');
    setTimeout(() => res.socket?.destroy(), 50);
  },
  'other-answer': (res) => {
    res.writeHead(201, { 'content-type': 'application/json' }).end('{"merchantId":"other-answer"}');
  },
  'endless-answer': (res) => {
    const more = () => {
      while (!res.destroyed && res.write('x'.repeat(16_384)));
    };
    res.writeHead(201).on('drain', more);
    more();
  },
  'paints-the-terminal': (res) => {
    const token = `mbk_test_${'a'.repeat(12)}_${'b'.repeat(43)}\u001b[2Jcccccc`;
    const apiKey = { id: 'a'.repeat(12), token, expiresAt: new Date(0).toISOString() };
    res.writeHead(201).end(JSON.stringify({ merchantId: 'paints-the-terminal', apiKey, credentialId: null }));
  },
  'says-it-again': (res, { authorization, body }) => {
    const detail = `\u001b[31mYou sent ${authorization} and ${body}\u0007`;
    res
      .writeHead(422)
      .end(JSON.stringify({ code: 'credential.refused_by_aws', detail, requestId: 'r-1', problems: [body] }));
  },
  'internal-error': (res) => {
    res
      .writeHead(500)
      .end(JSON.stringify({ code: 'internal', detail: 'Something failed on our side.', requestId: 'r-2' }));
  },
  'never-answers': () => undefined,
};

/** A server that is not the service, or a service on a bad day. */
export async function startMisbehavingServer(): Promise<MisbehavingServer> {
  const requests: string[] = [];
  const server = createServer((req, res) => {
    requests.push(`${String(req.method)} ${String(req.url)}`);
    void receive(req).then((received) => {
      const { id } = JSON.parse(received.body) as { id: string };
      BEHAVIOURS[id]?.(res, received);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${String(port)}`,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function receive(req: IncomingMessage): Promise<Received> {
  let body = '';
  for await (const chunk of req.setEncoding('utf8')) body += chunk as string;
  return { authorization: req.headers.authorization ?? '', body };
}
