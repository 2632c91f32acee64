import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import express from 'express';
import { ServiceError } from '../../src/domain/errors.ts';
import { BodyBudget } from '../../src/http/body-budget.ts';
import { sendProblem } from '../../src/http/problem.ts';
import { readBody } from '../../src/http/steps/read-body.ts';
import { FRAME, PREFACE, frame, headersFrame } from './protocols-frames.ts';
import { CLIENTS, sleep, startServer, uncaught } from './protocols-harness.ts';
import type { ClientName, RunningServer } from './protocols-harness.ts';
import { eventually, until } from '../support/until.ts';

const CLEARTEXT = ['HTTP/1.1', 'HTTP/2'] as const satisfies ClientName[];
const MIB = Buffer.alloc(1_048_576, 'x');
const budget = new BodyBudget(64_000_000);
let running: RunningServer;
/** What handlers noticed. */
let noticed: string[] = [];

beforeAll(async () => {
  running = await startServer(createApp());
});

beforeEach(async () => {
  // What a test before this one left is noticed by none of this one.
  await until('every request of before is over', () => running.server.openRequests === 0);
  noticed = [];
});

afterAll(async () => {
  await running.server.close(0);
  expect(uncaught).toEqual([]);
  expect(budget.inUse).toBe(0);
});

function createApp(): express.Express {
  const app = express();
  app.use((_req, res, next) => {
    res.on('close', () => noticed.push(`closed, ended ${String(res.writableEnded)}`));
    next();
  });
  app.get('/throws', () => {
    throw new Error('secret detail');
  });
  app.get('/rejects', () => Promise.reject(new ServiceError('model.id_invalid', 'No such model.')));
  app.get('/throws-late', (_req, res) => {
    res.writeHead(200, { 'content-type': 'application/json' });
    res.write('{"half":');
    setImmediate(() => {
      res.emit('fail');
    });
    return new Promise((_resolve, reject) =>
      res.once('fail', () => {
        reject(new Error('late'));
      }),
    );
  });
  app.get('/bad-header', (_req, res) => {
    res.setHeader('content-type', ['a', 'b']);
    res.end();
  });
  app.get('/twice', (_req, res) => {
    res.end('once');
    res.write('twice');
    res.end('thrice');
  });
  app.get('/endless', (_req, res) => {
    const timer = setInterval(() => res.write(MIB.subarray(0, 1_000)), 5);
    res.once('close', () => {
      clearInterval(timer);
      res.write('into the void');
      res.end('and again');
    });
  });
  app.get('/silent', () => noticed.push('waiting'));
  app.post('/upload', async (req, res) => {
    try {
      using lease = await readBody(req, { bytesMax: 25_000_000, budget, timeoutMs: 5_000 });
      res.json(lease.bytes.length);
    } catch (error) {
      noticed.push((error as ServiceError).code);
      sendProblem(res, error as ServiceError, 'r');
    }
  });
  return app;
}

test.each(CLEARTEXT)(
  '%s: a handler that fails before headers is answered, without its words',
  async (name) => {
    const thrown = await CLIENTS[name](running.port, { path: '/throws' });
    expect([thrown.status, thrown.headers['content-type']]).toEqual([500, 'application/problem+json']);
    expect(thrown.body.toString()).not.toContain('secret');
    expect(running.errors.pop()?.message).toBe('secret detail');
    const rejected = await CLIENTS[name](running.port, { path: '/rejects' });
    expect(JSON.parse(rejected.body.toString())).toMatchObject({ status: 400, code: 'model.id_invalid' });
  },
);

test('HTTP/2: a header that cannot be sent cuts the response instead of leaving the client waiting', async () => {
  await expect(CLIENTS['HTTP/2'](running.port, { path: '/bad-header' })).rejects.toThrow(
    'NGHTTP2_INTERNAL_ERROR',
  );
});

test.each(CLEARTEXT)(
  '%s: a handler that fails after headers cuts the response, and the client notices',
  async (name) => {
    await expect(CLIENTS[name](running.port, { path: '/throws-late' })).rejects.toThrow(
      name === 'HTTP/2' ? 'NGHTTP2_INTERNAL_ERROR' : 'aborted',
    );
  },
);

test.each(CLEARTEXT)('%s: writing after the end harms nobody', async (name) => {
  const answer = await CLIENTS[name](running.port, { path: '/twice' }).catch((error: unknown) => error);
  expect(answer).toBeDefined();
  expect((await CLIENTS[name](running.port, { path: '/rejects' })).status).toBe(400);
});

test('HTTP/1.1: a client that leaves mid-download is noticed', async () => {
  const request = http
    .get({ port: running.port, path: '/endless', agent: false })
    .on('error', () => undefined);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  await once(response, 'data');
  request.destroy();
  expect(await notices(1)).toEqual(['closed, ended false']);
});

test.each([http2.constants.NGHTTP2_CANCEL, http2.constants.NGHTTP2_NO_ERROR, 'session', 'socket'])(
  'HTTP/2: a client that leaves mid-download is noticed (%s)',
  async (how) => {
    const session = connect();
    const stream = session.request({ ':path': '/endless' }).on('error', () => undefined);
    await once(stream, 'data');
    leave(how, session, stream);
    expect(await notices(1)).toEqual(['closed, ended false']);
    session.destroy();
  },
);

test.each(['with', 'without'])(
  'HTTP/1.1: a client that leaves mid-upload is noticed (%s length)',
  async (length) => {
    const headers = length === 'with' ? { 'content-length': 3 * MIB.length } : {};
    const options = { port: running.port, path: '/upload', method: 'POST', headers, agent: false };
    const request = http.request(options).on('error', () => undefined);
    request.write(MIB.subarray(0, 500_000));
    await until('the upload has begun', () => budget.inUse > 0);
    request.destroy();
    expect(await notices(2)).toEqual(['closed, ended false', 'request.aborted']);
    expect(budget.inUse).toBe(0);
  },
);

const LEAVINGS = [
  { how: http2.constants.NGHTTP2_CANCEL, declared: true },
  { how: http2.constants.NGHTTP2_NO_ERROR, declared: true },
  { how: 'session', declared: true },
  { how: 'session', declared: false },
  { how: 'socket', declared: true },
  { how: 'socket', declared: false },
];
test.each(LEAVINGS)(
  'HTTP/2: a client that leaves mid-upload is noticed ($how, length $declared)',
  async (leaving) => {
    const session = connect();
    const headers = {
      ':path': '/upload',
      ':method': 'POST',
      ...(leaving.declared && { 'content-length': 500_000 }),
    };
    const stream = session.request(headers).on('error', () => undefined);
    stream.write(MIB.subarray(0, 100_000));
    await until('the upload has begun', () => budget.inUse > 0);
    await sleep(20);
    leave(leaving.how, session, stream);
    expect(await notices(2)).toEqual(['closed, ended false', 'request.aborted']);
    expect(budget.inUse).toBe(0);
    session.destroy();
  },
);

// Node's client ends a stream properly before it resets it; others do not, and then the body only looks whole.
test.each([0, 8])(
  'HTTP/2: a body of no declared length that ends in RST_STREAM(%s) is not taken for whole',
  async (code) => {
    const socket = net.connect(running.port, '127.0.0.1').on('error', () => undefined);
    socket.write(
      Buffer.concat([
        PREFACE,
        headersFrame('POST', '/upload'),
        frame(FRAME.data, 0, MIB.subarray(0, 10_000)),
      ]),
    );
    await until('the upload has begun', () => budget.inUse > 0);
    socket.write(frame(FRAME.reset, 0, Buffer.from([0, 0, 0, code])));
    expect(await notices(2)).toEqual(['closed, ended false', 'request.aborted']);
    socket.destroy();
  },
);

test('HTTP/1.1: when a connection breaks, the requests queued behind the first learn of it too', async () => {
  const socket = net.connect(running.port);
  socket.write('GET /silent HTTP/1.1\r\nHost: x\r\n\r\nGET /silent HTTP/1.1\r\nHost: x\r\n\r\n');
  expect(await notices(2)).toEqual(['waiting', 'waiting']);
  socket.destroy();
  expect(await notices(4)).toHaveLength(4);
  expect(running.server.openRequests).toBe(0);
});

test('no request is counted once all have left', async () => {
  expect(
    await eventually(
      () => running.server.openRequests,
      (open) => open === 0,
    ),
  ).toBe(0);
});

/** So many of them, in the order of the alphabet. */
async function notices(count: number): Promise<string[]> {
  return [
    ...(await eventually(
      () => noticed,
      ({ length }) => length >= count,
    )),
  ].sort();
}

let lastSocket: net.Socket;

function connect(): http2.ClientHttp2Session {
  lastSocket = net.connect(running.port, '127.0.0.1');
  return http2
    .connect('http://localhost', { createConnection: () => lastSocket })
    .on('error', () => undefined);
}

function leave(
  how: number | string,
  session: http2.ClientHttp2Session,
  stream: http2.ClientHttp2Stream,
): void {
  if (how === 'session') session.destroy();
  else if (how === 'socket') lastSocket.destroy();
  else stream.close(how as number);
}
