import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { afterAll, afterEach, beforeEach, expect, test } from '@jest/globals';
import express from 'express';
import type { Response } from 'express';
import { selfSignedCertificate } from './protocols-certificate.ts';
import { PREFACE } from './protocols-frames.ts';
import { CLIENTS, readAll, startServer, uncaught } from './protocols-harness.ts';
import type { RunningServer } from './protocols-harness.ts';
import { eventually, until } from '../support/until.ts';

let running: RunningServer;
/** Responses that handlers have opened and the test ends. */
let held: Response[] = [];

function createApp(): express.Express {
  const app = express();
  app.get('/held', (_req, res) => held.push(res));
  app.get('/started', (_req, res) => {
    res.write('first ');
    held.push(res);
  });
  return app.get('/', (_req, res) => res.send('ok'));
}

beforeEach(async () => {
  held = [];
  running = await startServer(createApp());
});

afterEach(() => running.server.close(0));

afterAll(() => {
  expect(uncaught).toEqual([]);
});

async function isRefused(): Promise<boolean> {
  const socket = net.connect(running.port, '127.0.0.1');
  const outcome = await Promise.race([once(socket, 'connect'), once(socket, 'error')]).then(
    () => false,
    () => true,
  );
  socket.destroy();
  return outcome;
}

test('HTTP/1.1: after stopAccepting open requests finish, and their connections close', async () => {
  const agent = new http.Agent({ keepAlive: true });
  const answers = ['/held', '/started'].map(async (path) => {
    const request = http.get({ port: running.port, path, agent });
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    return { connection: response.headers.connection, body: (await readAll(response)).toString() };
  });
  await until('both are held', () => held.length === 2);
  expect(running.server.openRequests).toBe(2);
  running.server.stopAccepting();
  expect(await isRefused()).toBe(true);
  for (const res of held) res.end('done');
  expect(await Promise.all(answers)).toEqual([
    { connection: 'close', body: 'done' },
    { connection: 'keep-alive', body: 'first done' },
  ]);
  await running.server.close(5_000);
  expect(running.server.openRequests).toBe(0);
  agent.destroy();
});

test('HTTP/2: after stopAccepting the client gets GOAWAY, and open requests finish', async () => {
  const session = http2.connect(`http://127.0.0.1:${String(running.port)}`);
  const stream = session.request({ ':path': '/started' });
  await once(stream, 'response');
  const goaway = once(session, 'goaway');
  running.server.stopAccepting();
  expect((await goaway)[0]).toBe(http2.constants.NGHTTP2_NO_ERROR);
  expect(await isRefused()).toBe(true);
  held[0]?.end('done');
  expect((await readAll(stream)).toString()).toBe('first done');
  await running.server.close(5_000);
});

test('idle and undecided connections end at once', async () => {
  const agent = new http.Agent({ keepAlive: true });
  const request = http.get({ port: running.port, path: '/', agent });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  await readAll(response);
  const session = http2.connect(`http://127.0.0.1:${String(running.port)}`);
  await once(session, 'remoteSettings');
  const sockets = ['', 'PR', PREFACE.subarray(0, 20)].map((start) => {
    const socket = net
      .connect(running.port, '127.0.0.1')
      .on('error', () => undefined)
      .resume();
    socket.write(start);
    return socket;
  });
  await until('all are open', () => sockets.every(({ readyState }) => readyState === 'open'));
  const started = Date.now();
  await running.server.close(25_000);
  // At once, and not after the grace period.
  expect(Date.now() - started).toBeLessThan(12_000);
  expect(
    await eventually(
      () => sockets.filter(({ destroyed }) => !destroyed),
      ({ length }) => length === 0,
    ),
  ).toHaveLength(0);
  agent.destroy();
});

test('what has not finished after the grace period is cut, on both protocols', async () => {
  const asked = ['HTTP/1.1', 'HTTP/2'] as const;
  const outcomes = asked.map((name) =>
    CLIENTS[name](running.port, { path: '/started' }).then(
      () => 'whole',
      () => 'cut',
    ),
  );
  await until('both are held', () => held.length === 2);
  const started = Date.now();
  await running.server.close(100);
  expect(Date.now() - started).toBeGreaterThanOrEqual(95);
  expect(Date.now() - started).toBeLessThan(10_000);
  expect(await Promise.all(outcomes)).toEqual(['cut', 'cut']);
  expect(running.server.openRequests).toBe(0);
});

test('closing again, or before listening, is harmless', async () => {
  await Promise.all([running.server.close(0), running.server.close(0)]);
  running.server.stopAccepting();
  const encrypted = await startServer(createApp(), { tls: selfSignedCertificate() });
  const session = http2.connect(`https://127.0.0.1:${String(encrypted.port)}`, { rejectUnauthorized: false });
  session.on('error', () => undefined);
  session.request({ ':path': '/held' }).on('error', () => undefined);
  await until('it is held', () => held.length === 1);
  const started = Date.now();
  await encrypted.server.close(50);
  expect(Date.now() - started).toBeLessThan(10_000);
});

test('a port that is taken rejects listen', async () => {
  const { server } = await startServer(createApp());
  await expect(server.listen(running.port, '127.0.0.1')).rejects.toThrow();
  const second = (await import('../../src/http/server.ts')).createServer(createApp(), {
    limits: {
      headersTimeoutMs: 1,
      requestTimeoutMs: 1,
      keepAliveTimeoutMs: 1,
      stallTimeoutMs: 60_000,
      headerBytesMax: 1_024,
      connectionsMax: 1,
      maxConcurrentStreams: 1,
    },
  });
  await expect(second.listen(running.port, '127.0.0.1')).rejects.toThrow('EADDRINUSE');
  await second.close(0);
  await server.close(0);
});

test('connections above the limit are closed, and served again below it', async () => {
  const small = await startServer(createApp(), { limits: { connectionsMax: 1 } });
  const socket = net.connect(small.port, '127.0.0.1').on('error', () => undefined);
  await once(socket, 'connect');
  await expect(CLIENTS['HTTP/1.1'](small.port, {})).rejects.toThrow();
  socket.destroy();
  // The server learns of it some time later than the client.
  const status = () =>
    CLIENTS['HTTP/2'](small.port, {}).then(
      (answer) => answer.status,
      () => undefined,
    );
  expect(await eventually(status, (one) => one === 200)).toBe(200);
  await small.server.close(0);
});
