import {
  BedrockRuntimeClient,
  ConverseStreamCommand,
  InvokeModelWithResponseStreamCommand,
} from '@aws-sdk/client-bedrock-runtime';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { converseBody, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { eventually, until } from '../support/until.ts';
import type { FaultRule } from '../aws/faults.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const PROMPT = 'STAND_IN_WORDS=40';

let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService({
    UPSTREAM_IDLE_TIMEOUT_MS: '1500',
    UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '2500',
    DRAIN_TIMEOUT_MS: '4000',
  });
  merchant = await onboard(service, 'merchant-a');
  // Opens the credential, so that the faults below meet the calls and not the vault.
  await merchant.post('/chat', { modelId: MODEL, prompt: 'warm' });
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

interface LedgerRecord {
  state: string;
  reason: string | null;
  provenance: string | null;
  tokens: { input: number; output: number };
}

async function lastRecord(): Promise<LedgerRecord> {
  const { items } = (await merchant.get('/usage/records?limit=1')).json as { items: LedgerRecord[] };
  return items[0] as LedgerRecord;
}

/** Waits for the row to leave `held`: after an abort it is settled in the background. */
const resolvedRecord = (): Promise<LedgerRecord> => eventually(lastRecord, ({ state }) => state !== 'held');

function newClient(protocol: 'h1' | 'h2'): BedrockRuntimeClient {
  return new BedrockRuntimeClient({
    endpoint: merchant.baseUrl,
    region: 'us-east-1',
    token: { token: merchant.token ?? '' },
    authSchemePreference: ['httpBearerAuth'],
    maxAttempts: 1,
    ...(protocol === 'h1' && { requestHandler: new NodeHttpHandler() }),
  });
}

/** Reads a stream to its end and says whether it ended with its terminal event or with an error. */
async function consume(
  protocol: 'h1' | 'h2',
  operation: 'converse' | 'invoke',
): Promise<'complete' | 'error' | 'silently cut'> {
  const client = newClient(protocol);
  let terminal = false;
  try {
    if (operation === 'converse') {
      const { stream } = await client.send(
        new ConverseStreamCommand({
          modelId: MODEL,
          messages: [{ role: 'user', content: [{ text: PROMPT }] }],
        }),
      );
      for await (const event of stream ?? []) terminal ||= event.metadata !== undefined;
    } else {
      const body = JSON.stringify({
        anthropic_version: 'bedrock-2023-05-31',
        max_tokens: 200,
        messages: [{ role: 'user', content: PROMPT }],
      });
      const { body: stream } = await client.send(
        new InvokeModelWithResponseStreamCommand({ modelId: MODEL, body }),
      );
      for await (const event of stream ?? [])
        terminal ||= Buffer.from(event.chunk?.bytes ?? []).includes('invocationMetrics');
    }
    return terminal ? 'complete' : 'silently cut';
  } catch {
    return 'error';
  } finally {
    client.destroy();
  }
}

/** The faults of a stream, and how the ledger must name what came of each. */
const faults: [string, FaultRule][] = [
  ['the connection is lost between frames', { cutAtEvent: 3 }],
  ['the connection is lost inside a frame', { cutAtEvent: 3, midFrame: true }],
  ['the connection is lost before the first event', { cutAtEvent: 0 }],
  ['the body ends in order, without its last event', { endCleanlyAtEvent: 3 }],
  ['the body ends in order, without any event', { endCleanlyAtEvent: 0 }],
  ['a frame is corrupt', { corruptCrcAtEvent: 2 }],
  ['nothing comes any more', { stallAtEvent: 2 }],
  ['AWS sends an exception', { exceptionAtEvent: 2, exceptionType: 'throttlingException', message: 'slow' }],
  ['AWS sends an error frame', { errorFrameAtEvent: 2, type: 'InternalFailure', message: 'oops' }],
  ['no headers come', { hangHeaders: true }],
  ['the connection is reset before the headers', { reset: true, executed: true }],
];

describe.each(['h1', 'h2'] as const)('to a client over %s', (protocol) => {
  describe.each(['converse', 'invoke'] as const)('%s stream', (operation) => {
    test.each(faults)('%s: an error, never a silent end, and unknown in the ledger', async (_name, fault) => {
      service.standIn.fault(fault);
      expect(await consume(protocol, operation)).toBe('error');
      expect(await resolvedRecord()).toMatchObject({ state: 'unknown', tokens: { input: 0, output: 0 } });
    });

    test('without a fault it is complete and settled with what AWS reported', async () => {
      expect(await consume(protocol, operation)).toBe('complete');
      const { usage } = runtimeCalls(service)[0] ?? {};
      expect(await lastRecord()).toMatchObject({
        state: 'settled',
        provenance: 'metrics',
        tokens: { input: usage?.input, output: usage?.output },
      });
    });

    test('refused before the first byte: void', async () => {
      service.standIn.fault({ status: 429, type: 'ThrottlingException', message: 'slow down' });
      expect(await consume(protocol, operation)).toBe('error');
      expect(await lastRecord()).toMatchObject({ state: 'void' });
    });
  });
});

describe('server-sent events', () => {
  test('a broken stream ends with an error event', async () => {
    service.standIn.fault({ cutAtEvent: 3 });
    const wire = await merchant.post(`/model/${MODEL}/converse-stream`, converseBody(PROMPT), {
      accept: 'text/event-stream',
    });
    expect(wire.headers.get('content-type')).toContain('text/event-stream');
    expect(wire.text).toMatch(/event: error\ndata: \{"type":"modelStreamErrorException"/);
    service.standIn.fault({ cutAtEvent: 3 });
    const chat = await merchant.post('/chat', { modelId: MODEL, prompt: PROMPT, stream: true });
    expect(chat.text).toMatch(/event: error\n/);
    expect(chat.text).not.toContain('event: usage');
  });

  test('an exception of AWS keeps its type', async () => {
    service.standIn.fault({ exceptionAtEvent: 2, exceptionType: 'throttlingException', message: 'slow' });
    const wire = await merchant.post(`/model/${MODEL}/converse-stream`, converseBody(PROMPT), {
      accept: 'text/event-stream',
    });
    expect(wire.text).toContain('"type":"throttlingException"');
  });
});

describe('a client that leaves', () => {
  async function leaveAfterFirstBytes(words = 40): Promise<void> {
    const abort = new AbortController();
    const response = await fetch(`${merchant.baseUrl}/model/${MODEL}/converse-stream`, {
      method: 'POST',
      signal: abort.signal,
      headers: { authorization: `Bearer ${merchant.token ?? ''}` },
      body: JSON.stringify(converseBody(`STAND_IN_WORDS=${String(words)}`)),
    });
    await response.body?.getReader().read();
    abort.abort();
  }

  test('is billed what AWS billed: the stream is read on to its usage', async () => {
    service.standIn.fault({ eventDelayMs: 20 });
    await leaveAfterFirstBytes();
    const record = await resolvedRecord();
    expect(record).toMatchObject({ state: 'settled', provenance: 'drained' });
    expect(record.tokens.output).toBe(runtimeCalls(service)[0]?.usage?.output);
  });

  test('does not hold the upstream for ever: after the drain time it is cut and unknown', async () => {
    service.standIn.fault({ eventDelayMs: 300 });
    await leaveAfterFirstBytes(120);
    expect(await resolvedRecord()).toMatchObject({ state: 'unknown' });
    const outcome = () => runtimeCalls(service)[0]?.outcome;
    expect(await eventually(outcome, (one) => one !== 'open')).toBe('client-aborted');
  });

  test('before a whole answer is billed too', async () => {
    service.standIn.fault({ beforeHeadersHangMs: 300 });
    const abort = new AbortController();
    const call = fetch(`${merchant.baseUrl}/model/${MODEL}/converse`, {
      method: 'POST',
      signal: abort.signal,
      headers: { authorization: `Bearer ${merchant.token ?? ''}` },
      body: JSON.stringify(converseBody('hello')),
    });
    await until('it is at AWS', () => runtimeCalls(service).length > 0);
    abort.abort();
    await expect(call).rejects.toThrow();
    expect(await resolvedRecord()).toMatchObject({ state: 'settled', provenance: 'drained' });
  });
});

describe('answers that are no streams', () => {
  test.each<[string, FaultRule, string, number]>([
    ['cut in the middle', { cutBody: true }, 'unknown', 502],
    ['never begun', { hangHeaders: true }, 'unknown', 504],
    ['reset', { reset: true, executed: true }, 'unknown', 502],
    [
      'refused by an internal error',
      { status: 500, type: 'InternalServerException', message: 'x' },
      'unknown',
      500,
    ],
    ['refused by validation', { status: 400, type: 'ValidationException', message: 'x' }, 'void', 400],
    ['refused by throttling', { status: 429, type: 'ThrottlingException', message: 'x' }, 'void', 429],
  ])('%s', async (_name, fault, state, status) => {
    service.standIn.fault(fault);
    const answer = await merchant.post(`/model/${MODEL}/converse`, converseBody('hello'));
    expect(answer.status).toBe(status);
    expect(answer.headers.get('x-amzn-errortype')).not.toBeNull();
    expect(await resolvedRecord()).toMatchObject({ state });
  });

  test('a paid call is sent once, whatever happens', async () => {
    for (const fault of [
      { reset: true, executed: true },
      { status: 500, type: 'InternalServerException' },
      { status: 503, type: 'ServiceUnavailableException' },
    ]) {
      service.standIn.forget();
      service.standIn.fault({ ...fault, times: 'always' });
      await merchant.post(`/model/${MODEL}/converse`, converseBody('hello'));
      expect(runtimeCalls(service)).toHaveLength(1);
    }
  });
});
