import tls from 'node:tls';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import express from 'express';
import { selfSignedCertificate } from './protocols-certificate.ts';
import {
  END_HEADERS,
  END_STREAM,
  FRAME,
  PREFACE,
  frame,
  headerBlock,
  headersFrame,
  typesOf,
} from './protocols-frames.ts';
import { CLIENTS, exchangeRaw, startServer, uncaught } from './protocols-harness.ts';
import type { RunningServer } from './protocols-harness.ts';
import { until } from '../support/until.ts';

/** Long after the time limits below, even where everything takes ten times as long as usual. */
const LATE_MS = 10_000;
const HOST = 'Host: x\r\n';
const LAST_FRAME = END_HEADERS | END_STREAM;
const LAST = `${HOST}Connection: close\r\n`;
let running: RunningServer;
/** Has short time limits. */
let hasty: RunningServer;
let encrypted: RunningServer;
let reached: string[] = [];
const refused: { status: number; requestId: string }[] = [];

beforeAll(async () => {
  const app = express().use((req, res) => {
    reached.push(`${req.method} ${req.url} ${String(req.headers.host)}`);
    res.end('reached');
  });
  running = await startServer(app, { onRefused: (refusal) => refused.push(refusal) });
  hasty = await startServer(app, {
    limits: { headersTimeoutMs: 300, requestTimeoutMs: 600, keepAliveTimeoutMs: 300 },
  });
  encrypted = await startServer(app, {
    limits: { headersTimeoutMs: 1_000, requestTimeoutMs: 2_000, keepAliveTimeoutMs: 1_000 },
    tls: selfSignedCertificate(),
  });
});

beforeEach(() => {
  reached = [];
  refused.length = 0;
});

afterAll(async () => {
  await running.server.close(0);
  await hasty.server.close(0);
  await encrypted.server.close(0);
  expect(uncaught).toEqual([]);
});

const many = (count: number): string =>
  Array.from({ length: count }, (_, i) => `x-${String(i)}: 1\r\n`).join('');

/** Raw requests, and the status each must get. */
const CORPUS: [name: string, request: string, status: number][] = [
  ['TRACE', `TRACE / HTTP/1.1\r\n${HOST}\r\n`, 405],
  ['CONNECT to an authority', `CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n`, 405],
  ['a WebDAV method', `PROPFIND / HTTP/1.1\r\n${HOST}\r\n`, 501],
  ['an unknown method', `BREW / HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a method in lower case', `get / HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['absolute-form', `GET http://evil.example/ HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['absolute-form, other scheme', `GET file:///etc/passwd HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['asterisk-form', `OPTIONS * HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a fragment', `GET /a#b HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a backslash in the path', `GET /a\\..\\b HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a bare percent sign', `GET /a%zz HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['percent-encoded bytes that are not UTF-8', `GET /a%ff HTTP/1.1\r\n${HOST}\r\n`, 400],
  ['a byte above ASCII', `GET /\u00e9 HTTP/1.1\r\n${HOST}\r\n`, 400],
  [
    'two Authorization',
    `GET / HTTP/1.1\r\n${HOST}Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n`,
    400,
  ],
  ['two equal Authorization', `GET / HTTP/1.1\r\n${HOST}Authorization: a\r\nAuthorization: a\r\n\r\n`, 400],
  ['two Host', `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400],
  ['no Host', `GET / HTTP/1.1\r\n\r\n`, 400],
  ['two Content-Length', `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nContent-Length: 1\r\n\r\na`, 400],
  [
    'two different Content-Length',
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\na`,
    400,
  ],
  ['a list as Content-Length', `POST / HTTP/1.1\r\n${HOST}Content-Length: 1, 1\r\n\r\na`, 400],
  ['a signed Content-Length', `POST / HTTP/1.1\r\n${HOST}Content-Length: +1\r\n\r\na`, 400],
  [
    'CL and TE',
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  [
    'TE and CL',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n`,
    400,
  ],
  [
    'two TE',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
  ],
  ['TE gzip, chunked', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, 400],
  ['TE identity', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n\r\n`, 400],
  ['a space before the colon', `GET / HTTP/1.1\r\n${HOST}Authorization : a\r\n\r\n`, 400],
  ['a folded header', `GET / HTTP/1.1\r\n${HOST}X-A: a\r\n b: c\r\n\r\n`, 400],
  ['a bare line feed in the head', `GET / HTTP/1.1\n${HOST}\r\n`, 400],
  ['a NUL in a header', `GET / HTTP/1.1\r\n${HOST}X-A: a\0b\r\n\r\n`, 400],
  ['a header without a name', `GET / HTTP/1.1\r\n${HOST}: a\r\n\r\n`, 400],
  ['64 headers', `GET / HTTP/1.1\r\n${LAST}${many(62)}\r\n`, 200],
  ['65 headers', `GET / HTTP/1.1\r\n${HOST}${many(64)}\r\n`, 431],
  ['1,200 headers', `GET / HTTP/1.1\r\n${HOST}${many(1_200)}\r\n`, 431],
  ['17 KiB of headers', `GET / HTTP/1.1\r\n${HOST}X-A: ${'a'.repeat(17_000)}\r\n\r\n`, 431],
  ['a target of 8 KiB', `GET /${'a'.repeat(8_191)} HTTP/1.1\r\n${LAST}\r\n`, 200],
  ['a target of 8 KiB and one', `GET /${'a'.repeat(8_192)} HTTP/1.1\r\n${HOST}\r\n`, 414],
  ['another Expect', `GET / HTTP/1.1\r\n${HOST}Expect: tea\r\n\r\n`, 417],
  ['HTTP/1.0 without Host', `GET / HTTP/1.0\r\n\r\n`, 200],
  ['HTTP/0.9', `GET /\r\n\r\n`, 400],
  ['HTTP/3.0', `GET / HTTP/3.0\r\n${HOST}\r\n`, 400],
  ['TLS to the cleartext port', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400],
  ['garbage', '\0\xff\xfe garbage\r\n\r\n', 400],
  ['a preface gone wrong', 'PRI * HTTP/1.1\r\n\r\nXX\r\n\r\n', 0],
];

test.each(CORPUS)('HTTP/1.1: %s', async (_name, request, status) => {
  const answers = await exchangeRaw(running.port, [Buffer.from(request, 'latin1')]);
  expect(Number(/^HTTP\/1\.1 (\d{3})/.exec(answers)?.[1] ?? 0)).toBe(status);
  expect(reached.length).toBe(status === 200 ? 1 : 0);
  if (status < 400) return;
  const [head = '', body = ''] = answers.split('\r\n\r\n');
  expect(head.toLowerCase()).toContain('content-type: application/problem+json');
  expect(head.toLowerCase()).toContain('connection: close');
  const problem = JSON.parse(body) as { status: number; requestId: string };
  expect(problem).toMatchObject({
    status,
    requestId: expect.any(String),
    detail: expect.any(String),
  });
});

test('a refusal is reported with the id that the client was given', async () => {
  const answer = await exchangeRaw(running.port, [`TRACE / HTTP/1.1\r\n${HOST}\r\n`]);
  expect(answer).toContain(refused.at(-1)?.requestId);
  expect(answer.toLowerCase()).toContain('allow: get, head, post, put, patch, delete, options');
});

test('what is reported never carries the bytes of the client', async () => {
  running.errors.length = 0;
  await exchangeRaw(running.port, [
    `GET / HTTP/1.1\r\nAuthorization: Bearer mbk_canary\r\nbad header\r\n\r\n`,
  ]);
  expect(running.errors.length).toBe(1);
  expect(Object.keys(running.errors[0] ?? {})).not.toContain('rawPacket');
});

const MORE_HEADERS = frame(FRAME.continuation, END_HEADERS, headerBlock([['x-b', 'b'.repeat(1_000)]]));
/** Frames after the preface, and what becomes of the request: a status of ours, `reached`, or `dropped` by the protocol. */
const H2_CORPUS: [name: string, frames: Buffer[], outcome: number | 'reached' | 'dropped'][] = [
  ['TRACE', [headersFrame('TRACE', '/')], 405],
  ['an unknown method', [headersFrame('BREW', '/')], 501],
  [
    'two Authorization',
    [
      headersFrame('GET', '/', [
        ['authorization', 'a'],
        ['authorization', 'b'],
      ]),
    ],
    400,
  ],
  ['a Host that is not the authority', [headersFrame('GET', '/', [['host', 'evil.example']])], 400],
  ['a Host equal to the authority', [headersFrame('GET', '/', [['host', 'localhost']])], 'reached'],
  [
    '65 headers',
    [
      headersFrame(
        'GET',
        '/',
        Array.from({ length: 65 }, (_, i) => [`x-${String(i)}`, '1']),
      ),
    ],
    431,
  ],
  ['17 KiB of headers', [headersFrame('GET', '/', [['x-a', 'a'.repeat(16_200)]], 0), MORE_HEADERS], 431],
  ['a long target', [headersFrame('GET', `/${'a'.repeat(8_192)}`)], 414],
  ['absolute-form', [headersFrame('GET', 'http://evil.example/')], 'dropped'],
  ['a fragment', [headersFrame('GET', '/a#b')], 400],
  ['another Expect', [headersFrame('GET', '/', [['expect', 'tea']])], 417],
  ['transfer-encoding', [headersFrame('GET', '/', [['transfer-encoding', 'chunked']])], 'dropped'],
  [
    'two content-length',
    [
      headersFrame('POST', '/', [
        ['content-length', '1'],
        ['content-length', '1'],
      ]),
    ],
    'dropped',
  ],
  ['a header in upper case', [headersFrame('GET', '/', [['X-A', '1']])], 'dropped'],
  ['HEADERS, then garbage', [headersFrame('GET', '/'), Buffer.alloc(64, 0xff)], 'reached'],
  ['reset of an idle stream', [frame(FRAME.reset, 0, Buffer.alloc(4), 99)], 'dropped'],
  ['a ping of no size', [frame(FRAME.ping, 0, Buffer.alloc(0), 0)], 'dropped'],
  ['a window of nothing', [frame(FRAME.windowUpdate, 0, Buffer.alloc(4), 0)], 'dropped'],
  ['a lone continuation', [frame(FRAME.continuation, END_HEADERS, Buffer.alloc(4))], 'dropped'],
  ['compression of nonsense', [frame(FRAME.headers, END_HEADERS, Buffer.alloc(50, 0xff))], 'dropped'],
  ['a frame larger than allowed', [frame(FRAME.data, 0, Buffer.alloc(20_000))], 'dropped'],
  [
    'data after the end',
    [headersFrame('GET', '/', [], LAST_FRAME), frame(FRAME.data, 0, Buffer.alloc(9))],
    'reached',
  ],
  [
    'a reset at once',
    [headersFrame('GET', '/'), frame(FRAME.reset, 0, Buffer.from([0, 0, 0, 8]))],
    'reached',
  ],
];

/** Is answered behind everything that was sent before, where the connection is not given up for it. */
const PING = frame(FRAME.ping, 0, Buffer.from('all done'), 0);

test.each(H2_CORPUS)('HTTP/2: %s', async (_name, frames, outcome) => {
  const answer = await exchangeRaw(running.port, [Buffer.concat([PREFACE, ...frames]), PING], {
    enough: (received) => received.includes('all done') || typesOf(received).includes(FRAME.goAway),
  });
  expect(answer.length).toBeGreaterThan(0); // at least our SETTINGS
  expect(reached.length).toBe(outcome === 'reached' ? 1 : 0);
  expect(refused.map(({ status }) => status)).toEqual(typeof outcome === 'number' ? [outcome] : []);
});

test('HTTP/2: TRACE is answered with a problem document', async () => {
  const answer = await CLIENTS['HTTP/2'](running.port, { path: '/', method: 'TRACE' });
  expect([answer.status, answer.headers['content-type']]).toEqual([405, 'application/problem+json']);
});

test('HTTP/2: an idle connection, a silent one and a stalled preface are closed', async () => {
  const started = Date.now();
  const frames = [headersFrame('GET', '/', [], LAST_FRAME)];
  await Promise.all([
    exchangeRaw(hasty.port, [PREFACE]),
    exchangeRaw(hasty.port, [Buffer.concat([PREFACE, ...frames])]),
    exchangeRaw(hasty.port, ['PRI * HTTP/2.0\r\n']),
  ]);
  expect(Date.now() - started).toBeLessThan(LATE_MS);
});

test.each(['', 'P', 'PRI'])('a connection that stops after "%s" is closed', async (start) => {
  const started = Date.now();
  expect(await exchangeRaw(hasty.port, start === '' ? [] : [start])).toBe('');
  expect(Date.now() - started).toBeLessThan(LATE_MS);
});

test('a preface in single bytes is understood, and so is a method that begins like it', async () => {
  const bytes = [...Buffer.concat([PREFACE, headersFrame('GET', '/slow', [], LAST_FRAME)])];
  await exchangeRaw(
    running.port,
    bytes
      .slice(0, 30)
      .map((byte) => Buffer.from([byte]))
      .concat(Buffer.from(bytes.slice(30))),
    { enough: () => reached.length > 0 },
  );
  expect(reached).toEqual(['GET /slow localhost']);
  const put = await exchangeRaw(running.port, [
    'P',
    'U',
    'T / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
  ]);
  expect(put).toMatch(/^HTTP\/1\.1 200 /);
});

test('a head that comes too slowly gets 408, and so does a body', async () => {
  const [head, body] = await Promise.all([
    exchangeRaw(hasty.port, ['GET / HTTP/1.1\r\n', 'X-Slow: ']),
    exchangeRaw(hasty.port, [
      `POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n`,
      'X: ',
    ]),
  ]);
  expect(head).toMatch(/^HTTP\/1\.1 408 .*application\/problem\+json/s);
  expect(body).toMatch(/^HTTP\/1\.1 408 /);
});

test('TLS: no handshake, a slow one, a broken one, and a protocol nobody speaks harm nobody', async () => {
  const { port } = encrypted;
  const started = Date.now();
  const odd = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['spdy/1'] });
  odd.on('error', () => undefined);
  const slowBytes = Array.from({ length: 150 }, () => Buffer.from([0x16]));
  await Promise.all([
    exchangeRaw(port, []),
    exchangeRaw(port, [Buffer.from('1603010200010001fc0303', 'hex'), ...slowBytes.fill(Buffer.alloc(1))]),
    exchangeRaw(port, ['GET / HTTP/1.1\r\n\r\n']),
    until('whoever speaks another protocol is cut off', () => odd.destroyed),
  ]);
  expect(odd.destroyed).toBe(true);
  expect(Date.now() - started).toBeLessThan(LATE_MS);
  expect((await CLIENTS['HTTP/1.1 over TLS'](port, {})).status).toBe(200);
});
