import { once } from 'node:events';
import type http from 'node:http';
import net from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import express from 'express';
import type { ServiceError } from '../../src/domain/errors.ts';
import { BodyBudget } from '../../src/http/body-budget.ts';
import { sendProblem } from '../../src/http/problem.ts';
import { readBody } from '../../src/http/steps/read-body.ts';
import { FRAME, PREFACE, frame, headersFrame } from '../server/protocols-frames.ts';
import { CLIENTS, exchangeRaw, readAll, sleep, startServer, uncaught } from '../server/protocols-harness.ts';
import type { Ask, RunningServer } from '../server/protocols-harness.ts';
import { eventually } from '../support/until.ts';

const BYTES_MAX = 25_000_000;
const MIB = 1_048_576;
let budget = new BodyBudget(BYTES_MAX);
let bytesMax = BYTES_MAX;
const PATIENT_MS = 20_000;
let timeoutMs = PATIENT_MS;
let running: RunningServer;
let outcomes: string[] = [];

beforeAll(async () => {
  const app = express();
  app.post('/', async (req, res) => {
    try {
      using lease = await readBody(req, { bytesMax, budget, timeoutMs });
      outcomes.push('whole');
      res.json({ bytes: lease.bytes.length, inUse: budget.inUse });
    } catch (error) {
      outcomes.push((error as ServiceError).code);
      sendProblem(res, error as ServiceError, 'r');
    }
  });
  app.post('/answers-early', async (req, res) => {
    const body = readBody(req, { bytesMax, budget, timeoutMs: 5_000 });
    setTimeout(() => res.end('early'), 20);
    await body.then(
      () => outcomes.push('whole'),
      (error: unknown) => outcomes.push((error as ServiceError).code),
    );
  });
  running = await startServer(app);
});

beforeEach(() => {
  expect(budget.inUse).toBe(0);
  budget = new BodyBudget(BYTES_MAX);
  bytesMax = BYTES_MAX;
  timeoutMs = PATIENT_MS;
  outcomes = [];
});

afterAll(async () => {
  await running.server.close(0);
  expect(uncaught).toEqual([]);
});

async function post(
  client: 'HTTP/1.1' | 'HTTP/2',
  ask: Ask,
): Promise<{ status: number; problem: Record<string, unknown> }> {
  const answer = await CLIENTS[client](running.port, { method: 'POST', ...ask });
  return { status: answer.status, problem: JSON.parse(answer.body.toString()) as Record<string, unknown> };
}

const BOTH = ['HTTP/1.1', 'HTTP/2'] as const;

test.each(BOTH)('%s: what is declared is reserved while it is held, and given back', async (client) => {
  const body = Buffer.alloc(100_000);
  const declared = await post(client, { headers: { 'content-length': body.length }, body });
  expect(declared).toEqual({ status: 200, problem: { bytes: 100_000, inUse: 100_000 } });
  const chunked = await post(client, {
    headers: { 'transfer-encoding': 'chunked' },
    body,
    ...(client === 'HTTP/2' && { headers: {} }),
  });
  expect(chunked).toEqual({ status: 200, problem: { bytes: 100_000, inUse: 131_072 } });
  const none = await post(client, {});
  expect(none.problem).toMatchObject({ bytes: 0 });
  expect(budget.inUse).toBe(0);
});

test('a body that declares too much is refused unread', async () => {
  const headers = { 'content-length': BYTES_MAX + 1, expect: '100-continue' };
  const answer = await post('HTTP/1.1', { headers });
  expect(answer).toMatchObject({ status: 413, problem: { code: 'request.too_large' } });
});

test('HTTP/1.1: the answer to a 26 MB upload arrives, though it is refused at the first byte', async () => {
  const body = Buffer.alloc(26_000_000, 'x');
  const answers = [
    (await post('HTTP/1.1', { headers: { 'content-length': body.length }, body })).status,
    (await fetch(`http://127.0.0.1:${String(running.port)}/`, { method: 'POST', body })).status,
    await uploadThenRead(
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${String(body.length)}\r\n\r\n`,
      body,
    ),
    await uploadThenRead('GET http://x/ HTTP/1.1\r\nHost: x\r\nContent-Length: 26000000\r\n\r\n', body),
  ];
  expect(answers).toEqual([413, 413, 413, 400]);
  expect(running.server.openRequests).toBe(0);
});

/** As Python's http.client does: reads nothing before everything is written. */
async function uploadThenRead(head: string, body: Buffer): Promise<number> {
  const socket = net.connect(running.port, '127.0.0.1');
  socket.pause();
  socket.write(head);
  for (let at = 0; at < body.length; at += MIB) {
    if (!socket.write(body.subarray(at, at + MIB))) await once(socket, 'drain');
  }
  await sleep(20);
  const answer = (await readAll(socket)).toString();
  expect(answer).toContain('application/problem+json');
  expect(answer.toLowerCase()).toContain('connection: close');
  return Number(answer.slice(9, 12));
}

test('HTTP/2: the answer to a 26 MB upload arrives, and the upload is stopped', async () => {
  const body = Buffer.alloc(26_000_000, 'x');
  const answer = await post('HTTP/2', { headers: { 'content-length': body.length }, body });
  expect(answer).toMatchObject({ status: 413, problem: { code: 'request.too_large' } });
});

test.each(BOTH)('%s: more than 1 MiB needs a Content-Length', async (client) => {
  const exact = await post(client, { body: Buffer.alloc(MIB), headers: chunkedOn(client) });
  expect(exact.problem).toEqual({ bytes: MIB, inUse: MIB });
  const over = await post(client, { body: Buffer.alloc(MIB + 1), headers: chunkedOn(client) });
  expect(over).toMatchObject({ status: 411, problem: { code: 'request.length_required' } });
});

test.each(BOTH)(
  '%s: where less than 1 MiB is allowed, that limit holds without a Content-Length too',
  async (client) => {
    bytesMax = 65_536;
    const over = await post(client, { body: Buffer.alloc(65_537), headers: chunkedOn(client) });
    expect(over).toMatchObject({ status: 413, problem: { code: 'request.too_large' } });
  },
);

function chunkedOn(client: 'HTTP/1.1' | 'HTTP/2'): http.OutgoingHttpHeaders {
  return client === 'HTTP/1.1' ? { 'transfer-encoding': 'chunked' } : {};
}

test.each(BOTH)(
  '%s: an exhausted budget is answered with Retry-After, and nothing stays reserved',
  async (client) => {
    budget = new BodyBudget(50_000);
    const headers = { 'content-length': 50_001 };
    const answer = await CLIENTS[client](running.port, {
      method: 'POST',
      headers,
      body: Buffer.alloc(50_001),
    });
    expect([answer.status, answer.headers['retry-after']]).toEqual([503, '2']);
    const chunked = await post(client, { headers: chunkedOn(client), body: Buffer.alloc(50_001) });
    expect(chunked).toMatchObject({ status: 503, problem: { code: 'service.overloaded' } });
    expect(budget.inUse).toBe(0);
  },
);

test.each(BOTH)('%s: compressed bodies are refused, identity is not', async (client) => {
  const gzip = await post(client, {
    headers: { 'content-encoding': 'gzip', 'content-length': 3 },
    body: Buffer.alloc(3),
  });
  expect(gzip).toMatchObject({ status: 415, problem: { code: 'request.unsupported_media_type' } });
  const identity = await post(client, {
    headers: { 'content-encoding': 'Identity', 'content-length': 3 },
    body: Buffer.alloc(3),
  });
  expect(identity.status).toBe(200);
});

test('HTTP/1.1: a body that stops coming gets 408, and gives its reservation back', async () => {
  timeoutMs = 250;
  const answer = await exchangeRaw(
    running.port,
    ['POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n', 'abc'],
    { enough: (received) => received.includes('request.timeout') },
  );
  expect(answer).toMatch(/^HTTP\/1\.1 408 .*request\.timeout/s);
  expect(outcomes).toEqual(['request.timeout']);
  expect(budget.inUse).toBe(0);
});

test('HTTP/2: a body that stops coming gets 408, and one that is longer or shorter than declared is cut', async () => {
  timeoutMs = 250;
  const head = (length: string): Buffer =>
    Buffer.concat([PREFACE, headersFrame('POST', '/', [['content-length', length]])]);
  await exchangeRaw(running.port, [head('9'), frame(FRAME.data, 0, Buffer.alloc(4))], {
    enough: () => outcomes.length === 1,
  });
  timeoutMs = PATIENT_MS;
  for (const [length, count] of [
    ['9', 2],
    ['3', 3],
  ] as const)
    await exchangeRaw(running.port, [head(length), frame(FRAME.data, 1, Buffer.alloc(4))], {
      enough: () => outcomes.length === count,
    });
  expect(outcomes).toEqual(['request.timeout', 'request.aborted', 'request.aborted']);
});

test('HTTP/1.1: what follows a body is another request, and a short body waits for its rest', async () => {
  const raw =
    'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na';
  const answer = await exchangeRaw(running.port, [raw, 'b'], {
    enough: (received) => received.includes('"bytes":2'),
  });
  expect(answer.match(/"bytes":\d/g)).toEqual(['"bytes":3', '"bytes":2']);
});

test('a malformed chunk is answered, and the handler learns that the body is lost', async () => {
  const answer = await exchangeRaw(running.port, [
    'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n',
    '3\r\nabc\r\nzz\r\n',
  ]);
  expect(answer).toMatch(/^HTTP\/1\.1 400 .*application\/problem\+json/s);
  expect(await outcomesOf(1)).toEqual(['request.aborted']);
});

/** So many of them, once they are there. */
function outcomesOf(count: number): Promise<string[]> {
  return eventually(
    () => outcomes,
    ({ length }) => length >= count,
  );
}

test('one byte per chunk costs no more memory than a large chunk', async () => {
  const body = '1\r\na\r\n'.repeat(20_000);
  const answer = await exchangeRaw(
    running.port,
    [`POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${body}0\r\n\r\n`],
    { enough: (received) => received.includes('inUse') },
  );
  expect(answer).toContain('{"bytes":20000,"inUse":32768}');
});

test('100 Continue is sent by the reader, so a refused upload is never invited', async () => {
  const head = (more: string): string =>
    `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n${more}\r\n`;
  const invited = await exchangeRaw(running.port, [head(''), 'abc'], {
    enough: (received) => received.includes('"bytes":3'),
  });
  expect(invited).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /);
  const refused = await exchangeRaw(running.port, [head('Content-Encoding: br\r\n')], {
    enough: (received) => received.includes('415'),
  });
  expect(refused).toMatch(/^HTTP\/1\.1 415 /);
});

test('HTTP/2: a body that was still coming when the answer went out is not taken for whole', async () => {
  const frames = [PREFACE, headersFrame('POST', '/answers-early'), frame(FRAME.data, 0, Buffer.alloc(4))];
  await exchangeRaw(running.port, [Buffer.concat(frames)], {
    enough: (received) => received.includes('early') && outcomes.length === 1,
    ms: 1_300,
  });
  expect(await outcomesOf(1)).toEqual(['request.aborted']);
});

test('a body that was lost before it is asked for is refused at once', async () => {
  const app = express();
  const codes: string[] = [];
  let arrived = 0;
  app.post('/', async (req, res) => {
    arrived += 1;
    await new Promise((resolve) => res.once('close', resolve));
    await readBody(req, { bytesMax, budget, timeoutMs: 5_000 }).catch((error: unknown) =>
      codes.push((error as ServiceError).code),
    );
  });
  await using late = await startServer(app);
  const { port } = late;
  const frames = [PREFACE, headersFrame('POST', '/'), frame(FRAME.data, 0, Buffer.alloc(4))];
  await exchangeRaw(port, [Buffer.concat(frames)], { enough: () => arrived === 1 });
  await exchangeRaw(port, ['POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc'], {
    enough: () => arrived === 2,
  });
  expect(
    await eventually(
      () => codes,
      ({ length }) => length === 2,
    ),
  ).toEqual(['request.aborted', 'request.aborted']);
});

test('a small body that nobody reads does not cost the connection', async () => {
  const app = express().post('/', (_req, res) => res.end('unread'));
  await using unread = await startServer(app);
  const request = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc';
  const answer = await exchangeRaw(unread.port, [request, request], {
    enough: (received) => received.toString().split('unread').length > 2,
  });
  expect(answer.match(/HTTP\/1\.1 200 /g)?.length).toBe(2);
});
