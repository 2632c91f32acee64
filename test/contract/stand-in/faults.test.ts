import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { ConverseCommand, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import { DescribeKeyCommand } from '@aws-sdk/client-kms';
import { GetCallerIdentityCommand } from '@aws-sdk/client-sts';
import {
  ALICE,
  BOB,
  NOVA,
  drain,
  kmsClient,
  refusal,
  runtimeClient,
  startWithMerchants,
  stsClient,
  userSays,
} from './clients.ts';
import type { FaultRule } from '../../aws/faults.ts';
import type { StandIn } from '../../aws/stand-in.ts';
import { eventually, until } from '../../support/until.ts';

let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
});
afterEach(() => {
  standIn.forget();
});
afterAll(() => standIn.close());

const ask = new ConverseCommand({ modelId: NOVA, messages: userSays('hi') });
/** messageStart, ten deltas, contentBlockStop, messageStop, metadata. */
const askForStream = new ConverseStreamCommand({ modelId: NOVA, messages: userSays('STAND_IN_WORDS=40') });
const ALL_EVENTS = 14;

/** The client has its answer before the stand-in has written the outcome down. */
async function lastEntry() {
  return eventually(
    () => standIn.journal.at(-1),
    (entry) => entry?.outcome !== 'open',
  );
}

describe('instead of an answer', () => {
  test('an error of any status, type and message, once', async () => {
    const fault = standIn.fault({
      operation: 'Converse',
      status: 429,
      type: 'ThrottlingException',
      message: 'Too many',
      headers: { 'retry-after': '7' },
    });
    const client = runtimeClient(standIn);
    expect(await refusal(client.send(ask))).toEqual({
      name: 'ThrottlingException',
      message: 'Too many',
      status: 429,
    });
    expect(standIn.journal[0]).toMatchObject({ outcome: 'faulted', executed: false, status: 429 });
    await expect(client.send(ask)).resolves.toBeDefined();
    expect(fault.hits()).toBe(1);
  });

  test('rules in a row are a script', async () => {
    standIn.fault({ status: 500, type: 'InternalServerException', executed: true });
    standIn.fault({ status: 503, type: 'ServiceUnavailableException', times: 2 });
    const client = runtimeClient(standIn);
    const statuses = [];
    for (let i = 0; i < 3; i += 1) statuses.push((await refusal(client.send(ask))).status);
    expect(statuses).toEqual([500, 503, 503]);
    expect(standIn.journal.map(({ executed }) => executed)).toEqual([true, false, false]);
  });

  test('in the wire form of each service', async () => {
    standIn.fault({ service: 'kms', status: 400, type: 'ThrottlingException', message: 'Rate exceeded' });
    standIn.fault({ service: 'sts', status: 400, type: 'Throttling', message: 'Rate exceeded' });
    const kms = await refusal(kmsClient(standIn).send(new DescribeKeyCommand({ KeyId: 'x' })));
    expect(kms).toEqual({ name: 'ThrottlingException', message: 'Rate exceeded', status: 400 });
    expect((await refusal(stsClient(standIn).send(new GetCallerIdentityCommand({})))).name).toBe(
      'Throttling',
    );
  });

  test('only for whom it is meant, until removed', async () => {
    const fault = standIn.fault({
      accessKeyId: BOB.accessKeyId,
      modelId: NOVA,
      pathIncludes: '/converse',
      times: 'always',
      status: 500,
    });
    await expect(runtimeClient(standIn).send(ask)).resolves.toBeDefined();
    const bob = runtimeClient(standIn, 'h2', BOB);
    await refusal(bob.send(ask));
    await refusal(bob.send(ask));
    expect(fault.hits()).toBe(2);
    fault.remove();
    await expect(bob.send(ask)).resolves.toBeDefined();
  });

  test('never for a request whose signature does not hold', async () => {
    const fault = standIn.fault({ status: 500 });
    await refusal(runtimeClient(standIn, 'h2', { ...ALICE, secretAccessKey: 'wrong' }).send(ask));
    expect(fault.hits()).toBe(0);
  });
});

describe.each(['h2', 'h1'] as const)('over %s', (protocol) => {
  async function stream(rule: FaultRule) {
    standIn.fault(rule);
    const { stream: body } = await runtimeClient(standIn, protocol).send(askForStream);
    const result = await drain(body);
    return { ...result, entry: await lastEntry() };
  }

  test('exceptionAtEvent', async () => {
    const { events, error, entry } = await stream({
      exceptionAtEvent: 3,
      exceptionType: 'throttlingException',
      message: 'slow down',
    });
    expect(events).toHaveLength(3);
    expect(error).toMatchObject({ name: 'ThrottlingException', message: 'slow down' });
    expect(entry).toMatchObject({ eventsSent: 3, outcome: 'faulted', executed: true, usageReported: false });
  });

  test('errorFrameAtEvent', async () => {
    const { events, error } = await stream({ errorFrameAtEvent: 2, type: 'Oops', message: 'unmodelled' });
    expect(events).toHaveLength(2);
    expect(error).toMatchObject({ name: 'Oops' });
  });

  test('endCleanlyAtEvent is a silent truncation', async () => {
    const { events, error, entry } = await stream({ endCleanlyAtEvent: 5 });
    expect(events).toHaveLength(5);
    expect(error).toBeUndefined();
    expect(entry).toMatchObject({ outcome: 'faulted', usageReported: false });
  });

  test('corruptCrcAtEvent', async () => {
    const { events, error, entry } = await stream({ corruptCrcAtEvent: 4 });
    expect(events.length).toBeLessThanOrEqual(4);
    expect(error?.message).toContain('checksum');
    expect(entry?.outcome).not.toBe('completed');
  });

  test('cutAtEvent in the middle of a frame', async () => {
    const { events, error, entry } = await stream({ cutAtEvent: 3, midFrame: true });
    expect(events).toHaveLength(3);
    expect(error).toBeDefined();
    expect(entry).toMatchObject({ outcome: 'cut', eventsSent: 3, executed: true });
  });

  test('cutAtEvent between frames: over HTTP/2 the JavaScript SDK may take a lost connection for a clean end', async () => {
    const { events, error, entry } = await stream({ cutAtEvent: 3 });
    expect(events).toHaveLength(3);
    // Over HTTP/2 it is a clean end unless the kernel resets the connection, which it does when something of the client was unread.
    if (protocol === 'h1') expect(error).toBeDefined();
    expect(entry).toMatchObject({ outcome: 'cut', usageReported: false });
  });

  test('cutAtEvent between frames, by the stream alone', async () => {
    const { events, error } = await stream({ cutAtEvent: 3, cutBy: 'stream' });
    expect(events.length).toBeLessThanOrEqual(3);
    expect(error).toBeDefined();
  });

  test('cutAtEvent after the last frame', async () => {
    const { events, entry } = await stream({ cutAtEvent: ALL_EVENTS });
    expect(events).toHaveLength(ALL_EVENTS);
    expect(entry).toMatchObject({ outcome: 'cut', usageReported: true });
  });

  test('stallAtEvent and eventDelayMs only take time', async () => {
    const start = Date.now();
    const { events, entry } = await stream({ stallAtEvent: 2, stallMs: 60, eventDelayMs: 5 });
    expect(events).toHaveLength(ALL_EVENTS);
    expect(Date.now() - start).toBeGreaterThanOrEqual(60 + ALL_EVENTS * 5 - 10);
    expect(entry?.outcome).toBe('completed');
  });

  test('a stall that the client does not wait for', async () => {
    standIn.fault({ stallAtEvent: 2 });
    const abort = new AbortController();
    const { stream: body } = await runtimeClient(standIn, protocol).send(askForStream, {
      abortSignal: abort.signal,
    });
    const drained = drain(body);
    await until('two events are sent', () => standIn.journal.at(-1)?.eventsSent === 2);
    abort.abort();
    await drained;
    expect(await lastEntry()).toMatchObject({ outcome: 'client-aborted', executed: true, eventsSent: 2 });
  });

  test('delayMs, then the answer', async () => {
    standIn.fault({ delayMs: 60 });
    const start = Date.now();
    await runtimeClient(standIn, protocol).send(ask);
    expect(Date.now() - start).toBeGreaterThanOrEqual(55);
  });

  test('beforeHeadersHangMs and hangHeaders: the model ran, the client has left', async () => {
    for (const rule of [{ beforeHeadersHangMs: 20_000 }, { hangHeaders: true }]) {
      standIn.forget();
      standIn.fault(rule);
      const abort = new AbortController();
      const left = refusal(runtimeClient(standIn, protocol).send(ask, { abortSignal: abort.signal }));
      await until('the model ran', () => standIn.journal.at(-1)?.executed === true);
      abort.abort();
      expect((await left).name).toBe('AbortError');
      expect(await lastEntry()).toMatchObject({ outcome: 'client-aborted', executed: true });
      expect(standIn.journal.at(-1)).not.toHaveProperty('status');
    }
  });

  test('reset before headers', async () => {
    standIn.fault({ reset: true });
    expect((await refusal(runtimeClient(standIn, protocol).send(ask))).status).toBeUndefined();
    expect(await lastEntry()).toMatchObject({ outcome: 'cut', executed: false });
  });

  test('cutBody breaks a unary answer off', async () => {
    standIn.fault({ cutBody: true });
    expect(await refusal(runtimeClient(standIn, protocol).send(ask))).toBeDefined();
    expect(await lastEntry()).toMatchObject({
      outcome: 'cut',
      executed: true,
      status: 200,
      usageReported: false,
    });
  });
});

test('a client that leaves a fast stream is noticed, and the stand-in stops writing', async () => {
  const abort = new AbortController();
  const long = new ConverseStreamCommand({ modelId: NOVA, messages: userSays('STAND_IN_WORDS=100000') });
  const { stream } = await runtimeClient(standIn).send(long, { abortSignal: abort.signal });
  for await (const event of stream ?? []) if (event.contentBlockDelta) break;
  abort.abort();
  const entry = await lastEntry();
  expect(entry?.outcome).toBe('client-aborted');
  expect(entry?.eventsSent).toBeLessThan(25_000);
});
