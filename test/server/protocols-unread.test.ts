import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import type { Socket } from 'node:net';
import tls from 'node:tls';
import { afterAll, afterEach, beforeEach, expect, test } from '@jest/globals';
import express from 'express';
import type { Response } from 'express';
import { selfSignedCertificate } from './protocols-certificate.ts';
import { END_HEADERS, END_STREAM, FRAME, PREFACE, frame, headersFrame } from './protocols-frames.ts';
import { eventually } from '../support/until.ts';
import { readAll, sleep, startServer, uncaught } from './protocols-harness.ts';
import type { RunningServer } from './protocols-harness.ts';
import { soon } from '../support/soon.ts';

const STALL_MS = 1_000;
const LARGE = Buffer.alloc(20_000_000, 'pattern of 17 chr');
const AT_ONCE_MAX = 16;

/** Lets a client take much in one read. */
const ROOM: object = { highWaterMark: 1_048_576 };

let running: RunningServer;
let encrypted: RunningServer;
/** Responses that handlers have opened and the test ends; and how many handlers have begun. */
let held: Response[] = [];
let begun = 0;

function createApp(): express.Express {
  const app = express().set('etag', false);
  app.use((_req, _res, next) => {
    begun += 1;
    next();
  });
  app.get('/held', (_req, res) => held.push(res));
  app.get('/large', (_req, res) => res.send(LARGE));
  app.get('/number/:n', (req, res) => res.send(`<${req.params.n}>`));
  return app;
}

beforeEach(async () => {
  held = [];
  begun = 0;
  const limits = { stallTimeoutMs: STALL_MS };
  running = await startServer(createApp(), { limits });
  encrypted = await startServer(createApp(), { limits, tls: selfSignedCertificate() });
});

afterEach(async () => {
  await running.server.close(0);
  await encrypted.server.close(0);
});

afterAll(() => {
  expect(uncaught).toEqual([]);
});

function get(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
}

function connect(): Socket {
  return net.connect({ port: running.port, host: '127.0.0.1', ...ROOM }).on('error', () => undefined);
}

/** What one connection gets for these bytes, until `isAll` of it or the end. */
async function answersTo(socket: Socket, bytes: string, isAll: (text: string) => boolean): Promise<string> {
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  socket.write(bytes);
  await becomes(() => socket.destroyed || isAll(text));
  return text;
}

/** Whether it comes to be so. */
function becomes(isSo: () => boolean): Promise<boolean> {
  return eventually(isSo, (so) => so);
}

function numbersIn(text: string): number[] {
  return [...text.matchAll(/<(\d+)>/g)].map(([, number]) => Number(number));
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

test('of a thousand requests in one packet sixteen are begun, and when nobody reads they are all cut', async () => {
  const socket = connect().pause();
  socket.write(get('/large').repeat(1_000));
  await becomes(() => running.server.openRequests > 900);
  expect(begun).toBe(AT_ONCE_MAX);
  expect(await becomes(() => running.server.openRequests === 0)).toBe(true);
  expect(begun).toBe(AT_ONCE_MAX);
  expect(running.errors.map((error) => (error as NodeJS.ErrnoException).code)).toContain(
    'ERR_READER_STALLED',
  );
  socket.destroy();
});

test('a client that pipelines on and on is not read meanwhile', async () => {
  const socket = connect();
  // Of HTTP/1.0, because Node counts those of a connection of HTTP/1.1 itself.
  const padded = `GET /held HTTP/1.0\r\nConnection: keep-alive\r\nX-Padding: ${'x'.repeat(8_000)}\r\n\r\n`;
  let taken = 0;
  for (let sent = 0; sent < 4_000; sent += 100) {
    socket.write(padded.repeat(100), () => {
      taken += 100;
    });
  }
  await becomes(() => begun === AT_ONCE_MAX);
  for (let before = -1; before !== taken;) {
    before = taken;
    await sleep(300); // the kernels of both sides take some megabytes
  }
  expect(running.server.openRequests).toBeLessThan(400);
  expect(begun).toBe(AT_ONCE_MAX);
  socket.destroy();
});

test('a client that pipelines and reads gets every answer, in order, and can go on', async () => {
  const socket = connect();
  const all = upTo(900);
  const asked = all.map((n) => get(`/number/${String(n)}`)).join('');
  const text = await answersTo(socket, asked, (got) => got.includes('<899>'));
  expect(numbersIn(text)).toEqual(all);
  expect(numbersIn(await answersTo(socket, get('/number/1234'), (got) => got.includes('<1234>')))).toEqual([
    1234,
  ]);
  socket.destroy();
});

test('a body behind many requests is read when its turn comes', async () => {
  const app = express();
  app.get('/held', (_req, res) => held.push(res));
  app.post('/length', async (req, res) => res.send(`<${String((await readAll(req)).length)}>`));
  await using own = await startServer(app);
  const socket = net.connect(own.port, '127.0.0.1');
  const post = `POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n${'x'.repeat(3_000_000)}`;
  const text = answersTo(socket, get('/held').repeat(20) + post, (got) => got.includes('<3000000>'));
  await becomes(() => held.length === 16);
  for (let next = 0; next < 20; next += 1) {
    await becomes(() => held.length > next);
    held[next]?.end(`<${String(next)}>`);
  }
  expect(numbersIn(await text)).toEqual([...upTo(20), 3_000_000]);
  socket.destroy();
});

test('once none of its requests waits, a client that leaves is noticed', async () => {
  const socket = connect();
  socket.write(get('/held').repeat(AT_ONCE_MAX + 1));
  await becomes(() => held.length === AT_ONCE_MAX);
  held[0]?.end('<0>');
  await becomes(() => held.length === AT_ONCE_MAX + 1);
  socket.destroy();
  expect(await becomes(() => running.server.openRequests === 0)).toBe(true);
});

test('an answer that waits behind a slow one is not cut, and neither is the slow one', async () => {
  const socket = connect();
  const text = answersTo(socket, get('/held') + get('/number/2'), (got) => got.includes('<2>'));
  await becomes(() => held.length === 1);
  await sleep(STALL_MS * 2);
  held[0]?.end('<1>');
  expect(numbersIn(await text)).toEqual([1, 2]);
  socket.destroy();
});

test.each(['cleartext', 'TLS'])('HTTP/1.1, %s: an answer that nobody reads is cut', async (how) => {
  const { socket, server } = open(how);
  socket.pause().write(get('/large'));
  await becomes(() => begun === 1);
  expect(await becomes(() => server.openRequests === 0)).toBe(true);
  socket.destroy();
});

test.each(['cleartext', 'TLS'])(
  'HTTP/1.1, %s: who goes on reading gets all of it, however slowly',
  async (how) => {
    const { socket } = open(how);
    socket.pause().write(get('/large'));
    const started = performance.now();
    let bytes = 0;
    while (bytes < LARGE.length && !socket.destroyed) {
      bytes += (socket.read() as Buffer | null)?.length ?? 0;
      await sleep(STALL_MS / 10); // the kernels hold some megabytes, and tell of a part of them at a time
    }
    expect(bytes).toBeGreaterThan(LARGE.length);
    expect(performance.now() - started).toBeGreaterThan(STALL_MS);
    socket.destroy();
  },
);

test.each(['cleartext', 'TLS'])(
  'HTTP/2, %s: an answer that nobody takes is reset, and its connection goes on',
  async (how) => {
    const session = openHttp2(how);
    const unread = session.request({ ':path': '/large' });
    const ended = once(unread, 'error').then(String);
    unread.pause();
    const pings = setInterval(() => session.ping(() => undefined), 50); // proves nothing but that it is there
    expect(await soon(ended, 10_000)).toContain('NGHTTP2_INTERNAL_ERROR');
    clearInterval(pings);
    expect((await readAll(session.request({ ':path': '/number/7' }))).toString()).toBe('<7>');
    session.destroy();
  },
);

test.each(['cleartext', 'TLS'])(
  'HTTP/2, %s: who goes on taking gets all of it, however slowly',
  async (how) => {
    const session = openHttp2(how);
    const stream = session.request({ ':path': '/large' }).on('error', () => undefined);
    const started = performance.now();
    const received: Buffer[] = [];
    const taking = (async () => {
      for await (const chunk of stream) {
        received.push(chunk as Buffer);
        if (performance.now() - started < STALL_MS * 2) await sleep(STALL_MS / 20);
      }
    })();
    await taking.catch(() => undefined); // where it is reset, what came is not all
    expect(Buffer.concat(received).equals(LARGE)).toBe(true);
    session.destroy();
  },
);

test('HTTP/2: a connection that nobody reads is cut, with all that its streams hold', async () => {
  const socket = connect().pause();
  const wholeWindow = Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff]); // SETTINGS_INITIAL_WINDOW_SIZE, the largest
  const more = Buffer.from([0x7f, 0xff, 0, 0]);
  const getLarge = headersFrame('GET', '/large').subarray(9); // without the head of its frame
  const odd = upTo(50).map((n) => 2 * n + 1);
  socket.write(
    Buffer.concat([
      PREFACE,
      frame(FRAME.settings, 0, wholeWindow, 0),
      frame(FRAME.windowUpdate, 0, more, 0),
      ...odd.map((id) => frame(FRAME.headers, END_HEADERS | END_STREAM, getLarge, id)),
    ]),
  );
  await becomes(() => begun === odd.length);
  expect(await becomes(() => running.server.openRequests === 0)).toBe(true);
  socket.resume();
  expect(await becomes(() => socket.destroyed)).toBe(true);
});

function open(how: string): { socket: Socket; server: RunningServer['server'] } {
  if (how === 'cleartext') return { socket: connect(), server: running.server };
  const socket = tls.connect({
    port: encrypted.port,
    host: '127.0.0.1',
    rejectUnauthorized: false,
    ...ROOM,
  });
  return { socket: socket.on('error', () => undefined), server: encrypted.server };
}

function openHttp2(how: string): http2.ClientHttp2Session {
  const url =
    how === 'cleartext'
      ? `http://127.0.0.1:${String(running.port)}`
      : `https://127.0.0.1:${String(encrypted.port)}`;
  return http2.connect(url, { rejectUnauthorized: false }).on('error', () => undefined);
}
