import { getEventListeners } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import type { RequestListener } from 'node:http';
import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { UpstreamError, bodyFailure } from '../../src/bedrock/upstream-error.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { accessKey, bytesOf, newCall, newRuntime, register } from './runtime-aws-setup.ts';
import { eventually, until } from '../support/until.ts';

let aws: StandIn;
const key = accessKey('merchanta');
const closers: (() => void)[] = [];

beforeAll(async () => {
  aws = await startStandIn();
  register(aws, key);
});
afterEach(() => {
  aws.forget();
  for (const close of closers.splice(0)) close();
});
afterAll(() => aws.close());

async function portOf(server: Server): Promise<string> {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return String((server.address() as AddressInfo).port);
}

/** A server that does to each connection what the test says. */
async function rawServer(onSocket: (socket: Socket) => void): Promise<string> {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  closers.push(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  return portOf(server);
}

async function httpServer(listener: RequestListener): Promise<string> {
  const server = createHttpServer(listener);
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${await portOf(server)}`;
}

async function failureOf(promise: Promise<unknown>): Promise<UpstreamError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UpstreamError);
  return error as UpstreamError;
}

describe('nothing was sent: executed no', () => {
  test('the connection is refused', async () => {
    const port = await rawServer(() => undefined);
    for (const close of closers.splice(0)) close();
    await using runtime = newRuntime(`http://127.0.0.1:${port}`);
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.unreachable', executed: 'no' });
  });

  test('the host name does not resolve', async () => {
    await using runtime = newRuntime('http://bedrock.invalid');
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.unreachable', executed: 'no' });
  });

  test('the TLS handshake is never answered: a black hole behind an open port', async () => {
    const received: Buffer[] = [];
    const port = await rawServer((socket) => socket.on('data', (bytes: Buffer) => received.push(bytes)));
    await using runtime = newRuntime(`https://127.0.0.1:${port}`, { connectMs: 150 });
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.unreachable', executed: 'no' });
    expect(received.length).toBeLessThanOrEqual(1);
  });

  test('the other side does not speak TLS, or hangs up during the handshake', async () => {
    const rude = [
      (socket: Socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
      (socket: Socket) => socket.once('data', () => socket.resetAndDestroy()),
      (socket: Socket) => socket.once('data', () => socket.end()),
    ];
    for (const onSocket of rude) {
      const port = await rawServer(onSocket);
      await using runtime = newRuntime(`https://127.0.0.1:${port}`);
      const error = await failureOf(runtime.send(newCall(key)));
      expect(error).toMatchObject({ code: 'upstream.unreachable', executed: 'no' });
    }
  });

  test('every connection stays in use', async () => {
    aws.fault({ hangHeaders: true });
    await using runtime = newRuntime(aws.url, { socketsMax: 1, connectMs: 1_500 });
    const first = new AbortController();
    const busy = failureOf(runtime.send(newCall(key, { signal: first.signal })));
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({
      code: 'service.overloaded',
      executed: 'no',
      options: { retryAfterSeconds: 1 },
    });
    first.abort();
    await busy;
    await bytesOf(await runtime.send(newCall(key)));
    expect(aws.journal).toHaveLength(2);
  });

  test('the caller gave up before, or while waiting for a connection', async () => {
    await using runtime = newRuntime(aws.url);
    const error = await failureOf(runtime.send(newCall(key, { signal: AbortSignal.abort() })));
    expect(error).toMatchObject({ code: 'request.aborted', executed: 'no' });
    const port = await rawServer(() => undefined);
    await using stuck = newRuntime(`https://127.0.0.1:${port}`);
    const signal = AbortSignal.timeout(30);
    expect(await failureOf(stuck.send(newCall(key, { signal })))).toMatchObject({
      code: 'request.aborted',
      executed: 'no',
    });
    expect(aws.journal).toHaveLength(0);
  });

  test('the runtime is closed', async () => {
    const runtime = newRuntime(aws.url);
    await runtime[Symbol.asyncDispose]();
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'service.shutting_down', executed: 'no' });
  });
});

describe('AWS may have run it: executed unknown', () => {
  test('the connection is reset after the request', async () => {
    aws.fault({ reset: true });
    await using runtime = newRuntime(aws.url);
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.incomplete', executed: 'unknown' });
    expect(aws.journal).toHaveLength(1);
  });

  test('a kept connection is closed just as the next request leaves on it', async () => {
    let requests = 0;
    const url = await httpServer((request, response) => {
      requests += 1;
      request.resume().on('end', () => (requests === 1 ? response.end('{}') : request.socket.destroy()));
    });
    await using runtime = newRuntime(url);
    await bytesOf(await runtime.send(newCall(key)));
    await new Promise(setImmediate);
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.incomplete', executed: 'unknown' });
    expect(requests).toBe(2);
  });

  test('the answer is no HTTP', async () => {
    const port = await rawServer((socket) => socket.once('data', () => socket.end('SSH-2.0-OpenSSH\r\n')));
    await using runtime = newRuntime(`http://127.0.0.1:${port}`);
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.incomplete', executed: 'unknown' });
  });

  test('no headers in time, and the connection does not linger', async () => {
    aws.fault({ hangHeaders: true });
    await using runtime = newRuntime(aws.url, { firstByteMs: 200 });
    const error = await failureOf(runtime.send(newCall(key)));
    expect(error).toMatchObject({ code: 'upstream.timeout', executed: 'unknown' });
    expect((await outcomes(1))[0]).toBe('client-aborted');
  });

  test('firstByteMs does not run while a connection is awaited, nor once the headers are there', async () => {
    aws.fault({ operation: 'ConverseStream', eventDelayMs: 300, times: 'always' });
    await using runtime = newRuntime(aws.url, { firstByteMs: 1_000 });
    const reply = await runtime.send(newCall(key, { operation: 'converse-stream' }));
    const startedAt = performance.now();
    await bytesOf(reply);
    expect(performance.now() - startedAt).toBeGreaterThan(1_000);
  });

  test('the caller gives up before the headers', async () => {
    aws.fault({ hangHeaders: true });
    await using runtime = newRuntime(aws.url);
    const caller = new AbortController();
    const sent = failureOf(runtime.send(newCall(key, { signal: caller.signal })));
    await until('it is at AWS', () => aws.journal.length === 1);
    caller.abort();
    expect(await sent).toMatchObject({ code: 'request.aborted', executed: 'unknown' });
    expect((await outcomes(1))[0]).toBe('client-aborted');
  });

  test('the caller gives up during the body', async () => {
    aws.fault({ stallAtEvent: 1 });
    await using runtime = newRuntime(aws.url);
    const caller = new AbortController();
    const call = newCall(key, { operation: 'converse-stream', signal: caller.signal });
    const reply = await runtime.send(call);
    const read = failureOf(bytesOf(reply));
    setTimeout(() => {
      caller.abort();
    }, 30);
    expect(await read).toMatchObject({ code: 'request.aborted', executed: 'unknown' });
    expect((await outcomes(1))[0]).toBe('client-aborted');
  });

  test('the whole call takes too long, whoever reads the body', async () => {
    aws.fault({ stallAtEvent: 1, times: 'always' });
    await using runtime = newRuntime(aws.url, { totalMs: 1_500 });
    const read = await runtime.send(newCall(key, { operation: 'converse-stream' }));
    expect(await failureOf(bytesOf(read))).toMatchObject({ code: 'upstream.timeout', executed: 'unknown' });
    const unread = await runtime.send(newCall(key, { operation: 'converse-stream' }));
    expect((await outcomes(2))[1]).toBe('client-aborted');
    expect(unread.body.destroyed).toBe(true);
  });

  test.each([{ cutBody: true }, { cutAtEvent: 2 }, { cutAtEvent: 2, midFrame: true }])(
    'the answer is cut off: %j',
    async (fault) => {
      const operation = 'cutBody' in fault ? 'converse' : 'converse-stream';
      aws.fault(fault);
      await using runtime = newRuntime(aws.url);
      const reply = await runtime.send(newCall(key, { operation }));
      const error: unknown = await bytesOf(reply).catch((reason: unknown) => reason);
      expect(bodyFailure(error)).toMatchObject({ code: 'upstream.incomplete', executed: 'unknown' });
    },
  );

  test('the runtime is closed meanwhile', async () => {
    aws.fault({ hangHeaders: true });
    const runtime = newRuntime(aws.url);
    const sent = failureOf(runtime.send(newCall(key)));
    await until('it is at AWS', () => aws.journal.length === 1);
    await runtime[Symbol.asyncDispose]();
    expect(await sent).toMatchObject({ code: 'upstream.incomplete', executed: 'unknown' });
  });
});

test('a redirect is an error, and nobody follows it', async () => {
  let elsewhere = 0;
  const target = await httpServer((_, response) => {
    elsewhere += 1;
    response.end();
  });
  const url = await httpServer((request, response) => {
    request.resume();
    response.writeHead(307, { location: `${target}/model/x/invoke` }).end('{}');
  });
  await using runtime = newRuntime(url);
  const error = await failureOf(runtime.send(newCall(key)));
  expect(error).toMatchObject({ code: 'upstream.error', executed: 'unknown' });
  expect(elsewhere).toBe(0);
});

test('release cuts an answer that is not read to its end, and may be called again', async () => {
  aws.fault({ stallAtEvent: 1 });
  await using runtime = newRuntime(aws.url);
  const reply = await runtime.send(newCall(key, { operation: 'converse-stream' }));
  reply.release();
  reply.release();
  expect((await outcomes(1))[0]).toBe('client-aborted');
});

test('an abort after the end changes nothing and leaves no listener', async () => {
  await using runtime = newRuntime(aws.url);
  const caller = new AbortController();
  const listeners = (): number => getEventListeners(caller.signal, 'abort').length;
  const reply = await runtime.send(newCall(key, { signal: caller.signal }));
  expect(listeners()).toBe(1);
  await bytesOf(reply);
  expect(await eventually(listeners, (count) => count === 0)).toBe(0);
  caller.abort();
  reply.release();
  await bytesOf(await runtime.send(newCall(key)));
  expect(await outcomes(2)).toEqual(['completed', 'completed']);
});

test('a client whose merchant is evicted meanwhile still finishes its answer', async () => {
  aws.fault({ eventDelayMs: 15, operation: 'ConverseStream' });
  await using runtime = newRuntime(aws.url, { clientsMax: 1 });
  const slow = await runtime.send(newCall(key, { operation: 'converse-stream' }));
  const other = newCall(key, { merchantId: 'shop-b' as MerchantId });
  await bytesOf(await runtime.send(other));
  await bytesOf(slow);
  expect(await outcomes(2)).toEqual(['completed', 'completed']);
  expect(aws.journal.map(({ verified }) => verified)).toEqual([true, true]);
});

/** Of each request to AWS, once none is open any more: that is written down after the answer has arrived. */
function outcomes(count: number): Promise<string[]> {
  return eventually(
    () => aws.journal.map(({ outcome }) => outcome),
    (all) => all.length >= count && !all.includes('open'),
  );
}
