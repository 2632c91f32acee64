import { createServer } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { createServer as createSocketServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { WebhookSender } from '../../src/ledger/webhook-sender-out.ts';
import type { WebhookSenderOptions } from '../../src/ledger/webhook-sender-out.ts';
import { isPublic } from '../../src/domain/address.ts';
import { urlProblem } from '../../src/ledger/webhook-target.ts';
import { selfSignedCertificate } from '../server/protocols-certificate.ts';

const PRODUCTION = { plainLoopback: false };
const TESTING = { plainLoopback: true };
const PUBLIC = '93.184.215.14';

const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function listening(server: {
  listen: Server['listen'];
  address: Server['address'];
  close: () => void;
}) {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

describe('addresses', () => {
  test.each([
    ['this network', '0.0.0.0'],
    ['this network', '0.1.2.3'],
    ['private', '10.0.0.1'],
    ['private', '10.255.255.255'],
    ['private', '172.16.0.1'],
    ['private', '172.31.255.255'],
    ['private', '192.168.1.1'],
    ['carrier-grade NAT', '100.64.0.1'],
    ['carrier-grade NAT (a cloud’s metadata)', '100.100.100.200'],
    ['carrier-grade NAT', '100.127.255.255'],
    ['loopback', '127.0.0.1'],
    ['loopback', '127.255.255.254'],
    ['link-local (metadata)', '169.254.169.254'],
    ['link-local (container credentials)', '169.254.170.2'],
    ['protocol assignments', '192.0.0.8'],
    ['documentation', '192.0.2.1'],
    ['6to4 relay', '192.88.99.1'],
    ['benchmarks', '198.18.0.1'],
    ['benchmarks', '198.19.255.255'],
    ['documentation', '198.51.100.7'],
    ['documentation', '203.0.113.7'],
    ['multicast', '224.0.0.1'],
    ['multicast', '239.255.255.255'],
    ['reserved', '240.0.0.1'],
    ['broadcast', '255.255.255.255'],
    ['a cloud’s wire server', '168.63.129.16'],
    ['unspecified', '::'],
    ['loopback', '::1'],
    ['IPv4-mapped loopback', '::ffff:127.0.0.1'],
    ['IPv4-mapped metadata', '::ffff:a9fe:a9fe'],
    ['IPv4-mapped, public inside', '::ffff:93.184.215.14'],
    ['IPv4-compatible', '::127.0.0.1'],
    ['IPv4-translated', '::ffff:0:10.0.0.1'],
    ['NAT64', '64:ff9b::a00:1'],
    ['NAT64, public inside', '64:ff9b::5db8:d70e'],
    ['local NAT64', '64:ff9b:1::a00:1'],
    ['discard', '100::1'],
    ['Teredo', '2001::1'],
    ['Teredo', '2001:0:53aa:64c::1'],
    ['benchmarks', '2001:2::1'],
    ['ORCHID', '2001:20::1'],
    ['documentation', '2001:db8::1'],
    ['6to4 of a private address', '2002:a00:1::1'],
    ['6to4 of loopback', '2002:7f00:1::'],
    ['documentation', '3fff::1'],
    ['segment routing', '5f00::1'],
    ['unique local', 'fc00::1'],
    ['unique local (metadata)', 'fd00:ec2::254'],
    ['link-local', 'fe80::1'],
    ['link-local with a zone', 'fe80::1%eth0'],
    ['public with a zone', '2606:4700::1%eth0'],
    ['site-local', 'fec0::1'],
    ['multicast', 'ff02::1'],
    ['not yet given out', '4000::1'],
    ['no address', 'localhost'],
    ['no address', ''],
    ['no address', '127.1'],
    ['no address', '0x7f000001'],
  ])('%s is not public: %s', (_what, address) => {
    expect(isPublic(address)).toBe(false);
  });

  test.each([
    '1.1.1.1',
    '9.255.255.255',
    '11.0.0.0',
    '100.63.255.255',
    '100.128.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.167.255.255',
    '198.17.255.255',
    '198.20.0.0',
    '223.255.255.255',
    PUBLIC,
    '2606:4700::1111',
    '2001:200::1',
    '2001:4860:4860::8888',
    '2a00:1450::1',
    '3ffe::1',
  ])('public: %s', (address) => {
    expect(isPublic(address)).toBe(true);
  });
});

describe('URLs', () => {
  test.each([
    ['plain http', 'http://hooks.example/x'],
    ['another scheme', 'ftp://hooks.example/x'],
    ['a file', 'file:///etc/passwd'],
    ['data', 'data:text/plain,x'],
    ['none', 'hooks.example'],
    ['nothing', ''],
    ['a user', 'https://user@hooks.example/'],
    ['a password', 'https://:pass@hooks.example/'],
    ['a host in the user', 'https://hooks.example@127.0.0.1/'],
    ['a fragment', 'https://hooks.example/#x'],
    ['SSH', 'https://hooks.example:22/'],
    ['plain port', 'https://hooks.example:80/'],
    ['a low port', 'https://hooks.example:1023/'],
    ['port nought', 'https://hooks.example:0/'],
    ['no port', 'https://hooks.example:99999/'],
    ['loopback', 'https://127.0.0.1/'],
    ['loopback, short', 'https://127.1/'],
    ['loopback, hexadecimal', 'https://0x7f000001/'],
    ['loopback, octal', 'https://0177.0.0.1/'],
    ['loopback, one number', 'https://2130706433/'],
    ['loopback, full width', 'https://１２７.０.０.１/'],
    ['loopback with a dot', 'https://127.0.0.1./'],
    ['loopback, percent-encoded', 'https://%31%32%37.0.0.1/'],
    ['loopback, IPv6', 'https://[::1]/'],
    ['loopback, mapped', 'https://[::ffff:127.0.0.1]/'],
    ['metadata', 'https://169.254.169.254/latest/meta-data'],
    ['http to loopback', 'http://127.0.0.1:8080/'],
    ['too long', `https://hooks.example/${'x'.repeat(2_048)}`],
  ])('%s is refused in production', (_what, url) => {
    expect(urlProblem(url, PRODUCTION)).toEqual(expect.any(String));
  });

  test.each([
    'https://hooks.example/alerts?token=x',
    'https://hooks.example:443/',
    'https://hooks.example:8443/',
    `https://${PUBLIC}/`,
    'https://[2606:4700::1111]:65535/',
  ])('taken: %s', (url) => {
    expect(urlProblem(url, PRODUCTION)).toBeUndefined();
  });

  test('outside production this machine may be called in clear, and nothing else', () => {
    expect(urlProblem('http://127.0.0.1:8080/x', TESTING)).toBeUndefined();
    expect(urlProblem('http://[::1]:8080/x', TESTING)).toBeUndefined();
    for (const url of [
      'http://127.0.0.2:8080/',
      'http://127.0.0.1:80/',
      'http://localhost:8080/',
      'http://10.0.0.1:8080/',
      'https://127.0.0.1:8080/',
    ])
      expect(urlProblem(url, TESTING)).toEqual(expect.any(String));
  });
});

const event = (url: string, attempt = 1) => ({
  url,
  body: '{"x":1}',
  headers: { 'webhook-id': 'x' },
  attempt,
  signal: new AbortController().signal,
});

describe('names', () => {
  /** A sender that would reach a server here, whatever address it decides on; and what it connected to. */
  function sender(answers: readonly (readonly string[])[], more: Partial<WebhookSenderOptions> = {}) {
    const dialled: string[] = [];
    const asked: string[] = [];
    const options: WebhookSenderOptions = {
      rules: PRODUCTION,
      resolve: (host) => {
        asked.push(host);
        return Promise.resolve(answers[Math.min(asked.length, answers.length) - 1] ?? []);
      },
      dial: (address) => {
        dialled.push(address);
        return '127.0.0.1';
      },
      ...more,
    };
    return { sender: new WebhookSender(options), dialled, asked };
  }

  async function receiver() {
    const { cert, key } = selfSignedCertificate();
    const seen: { host: string | undefined; sni: unknown; path: string | undefined }[] = [];
    const server = createSecureServer({ cert, key }, (request: IncomingMessage, response) => {
      const { servername } = request.socket as unknown as { servername: unknown };
      seen.push({ host: request.headers.host, sni: servername, path: request.url });
      response.end();
    });
    return { port: await listening(server), cert, seen };
  }

  test('the connection goes to the address that was checked, with one lookup; TLS and Host speak of the name', async () => {
    const { port, cert, seen } = await receiver();
    const url = `https://localhost:${String(port)}/in?a=1`;
    // A resolver that answers otherwise the second time: rebinding.
    const { sender: out, dialled, asked } = sender([[PUBLIC], ['127.0.0.1']], { ca: cert });
    expect(await out.send(event(url))).toEqual({ status: 200 });
    expect({ dialled, asked }).toEqual({ dialled: [PUBLIC], asked: ['localhost'] });
    expect(seen).toEqual([{ host: `localhost:${String(port)}`, sni: 'localhost', path: '/in?a=1' }]);
    // The next attempt looks again, and is refused.
    expect(await out.send(event(url, 2))).toEqual({ problem: 'address not allowed' });
    expect(dialled).toEqual([PUBLIC]);
    expect(seen).toHaveLength(1);
  });

  test('a certificate of another name, or of nobody we know, is not accepted', async () => {
    const { port, cert, seen } = await receiver();
    const problem = 'certificate or TLS not accepted';
    const other = sender([[PUBLIC]], { ca: cert });
    expect(await other.sender.send(event(`https://hooks.example:${String(port)}/`))).toEqual({ problem });
    const unknown = sender([[PUBLIC]]);
    expect(await unknown.sender.send(event(`https://localhost:${String(port)}/`))).toEqual({ problem });
    expect(seen).toEqual([]);
  });

  test.each([
    [['127.0.0.1']],
    [[PUBLIC, '10.0.0.1']],
    [['10.0.0.1', PUBLIC]],
    [['2606:4700::1111', '::1']],
    [['::ffff:93.184.215.14']],
    [['64:ff9b::5db8:d70e']],
    [['169.254.169.254']],
  ])('a name that points to %s is not called at all', async (addresses) => {
    const { sender: out, dialled } = sender([addresses]);
    expect(await out.send(event('https://hooks.example/'))).toEqual({ problem: 'address not allowed' });
    expect(dialled).toEqual([]);
  });

  test('outside production too, https goes to the internet only', async () => {
    const { sender: out, dialled } = sender([['127.0.0.1']], { rules: TESTING });
    expect(await out.send(event('https://hooks.example/'))).toEqual({ problem: 'address not allowed' });
    expect(dialled).toEqual([]);
  });

  test('each attempt takes the next address; a name without any is said so', async () => {
    const closed = await listening(createServer());
    for (const close of closers.splice(0)) close();
    const many = sender([[PUBLIC, '1.1.1.1']]);
    for (const attempt of [1, 2, 3])
      expect(await many.sender.send(event(`https://hooks.example:${String(closed)}/`, attempt))).toEqual({
        problem: 'connection refused',
      });
    expect(many.dialled).toEqual([PUBLIC, '1.1.1.1', PUBLIC]);
    expect(await sender([[]]).sender.send(event('https://hooks.example/'))).toEqual({
      problem: 'name not found',
    });
  });

  test('a URL that was let in by older rules is looked at again before it is called', async () => {
    const { sender: out, asked } = sender([[PUBLIC]]);
    for (const url of [
      'http://hooks.example/',
      'https://hooks.example:22/',
      'https://127.0.0.1/',
      'http://127.0.0.1:9999/',
    ])
      expect(await out.send(event(url))).toEqual({ problem: 'address not allowed' });
    expect(asked).toEqual([]);
  });

  test('a resolver that hangs is given up with everything else', async () => {
    const { sender: out } = sender([], {
      timeoutMs: 50,
      resolve: (_host, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            reject(new Error('cancelled'));
          });
        }),
    });
    expect(await out.send(event('https://hooks.example/'))).toEqual({ problem: 'no answer in time' });
  });
});

describe('receivers that misbehave', () => {
  const out = new WebhookSender({ rules: TESTING, timeoutMs: 2_000 });
  const to = (port: number) => event(`http://127.0.0.1:${String(port)}/`);

  test('an answer without end counts by its status, and only 64 KB of it are read', async () => {
    let written = 0;
    const server = createServer((_request, response) => {
      const more = () => {
        while (!response.destroyed && response.write('x'.repeat(16_384))) written += 16_384;
      };
      response.on('drain', more);
      more();
    });
    expect(await out.send(to(await listening(server)))).toEqual({ status: 200 });
    expect(written).toBeLessThan(8_000_000);
  });

  test.each<[string, (socket: Socket) => void, object]>([
    ['never answers', () => undefined, { problem: 'no answer in time' }],
    ['hangs up', (socket) => socket.destroy(), { problem: 'connection lost' }],
    ['speaks no HTTP', (socket) => socket.end('hello\r\n\r\n'), { problem: 'connection lost' }],
    [
      'sends headers without end',
      (socket) => socket.write(`HTTP/1.1 200 OK\r\n${'x: y\r\n'.repeat(20_000)}`),
      { problem: 'connection lost' },
    ],
    [
      'breaks off in the headers',
      (socket) => socket.end('HTTP/1.1 200 OK\r\nx'),
      { problem: 'connection lost' },
    ],
    [
      'says continue for ever',
      (socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n'),
      { problem: 'no answer in time' },
    ],
    [
      'switches protocols',
      (socket) =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n'),
      { problem: 'connection lost' },
    ],
    [
      'drips its body',
      (socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx'),
      { status: 200 },
    ],
    [
      'breaks off in the body',
      (socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx'),
      { status: 200 },
    ],
  ])('%s', async (_what, behave, expected) => {
    const server = createSocketServer((socket) => {
      socket
        .on('error', () => undefined)
        .once('data', () => {
          behave(socket);
        });
      closers.push(() => socket.destroy());
    });
    const port = await listening(server as unknown as Server);
    expect(await out.send(to(port))).toEqual(expected);
  });

  test('who asks it to stop is told so at once', async () => {
    const server = createServer(() => undefined);
    const port = await listening(server);
    closers.push(() => {
      server.closeAllConnections();
    });
    const stop = new AbortController();
    const sending = new WebhookSender({ rules: TESTING }).send({ ...to(port), signal: stop.signal });
    setTimeout(() => {
      stop.abort();
    }, 50);
    expect(await sending).toEqual({ problem: 'stopped' });
  });
});
