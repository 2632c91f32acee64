import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import {
  CountTokensCommand,
  InvokeModelCommand,
  InvokeModelWithResponseStreamCommand,
} from '@aws-sdk/client-bedrock-runtime';
import { ALICE, drain, refusal, runtimeClient, startWithMerchants } from './clients.ts';
import type { StandIn } from '../../aws/stand-in.ts';

type Json = Record<string, unknown>;

interface FamilyCase {
  modelId: string;
  body: Json;
  /** The answer's text, and what the body says about tokens, without a stream. */
  text: (answer: Json) => unknown;
  usage: Json;
  /** The text of one chunk. */
  delta: (chunk: Json) => unknown;
  caches?: boolean;
}

const SAID = 'one two three';
const ANSWER = `[${ALICE.accountId}] You said 3 words: one two three`;
/** Chunks that carry no text count as empty. */
const textOf = (delta: unknown): string => (typeof delta === 'string' ? delta : '');
const at = (value: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((v, key) => (v as Json | undefined)?.[key], value);

const FAMILIES: FamilyCase[] = [
  {
    modelId: 'us.anthropic.claude-sonnet-4-20250514-v1:0',
    body: {
      anthropic_version: 'bedrock-2023-05-31',
      max_tokens: 100,
      messages: [{ role: 'user', content: SAID }],
    },
    text: (a) => at(a, 'content.0.text'),
    usage: {
      usage: {
        input_tokens: 3,
        output_tokens: 8,
        cache_read_input_tokens: 0,
        cache_creation_input_tokens: 0,
      },
    },
    delta: (c) => at(c, 'delta.text'),
    caches: true,
  },
  {
    modelId: 'amazon.nova-lite-v1:0',
    body: { messages: [{ role: 'user', content: [{ text: SAID }] }] },
    text: (a) => at(a, 'output.message.content.0.text'),
    usage: {
      usage: {
        inputTokens: 3,
        outputTokens: 8,
        totalTokens: 11,
        cacheReadInputTokenCount: 0,
        cacheWriteInputTokenCount: 0,
      },
    },
    delta: (c) => at(c, 'contentBlockDelta.delta.text'),
    caches: true,
  },
  {
    modelId: 'amazon.titan-text-express-v1',
    body: { inputText: SAID },
    text: (a) => at(a, 'results.0.outputText'),
    usage: { inputTextTokenCount: 3, results: [{ tokenCount: 8, completionReason: 'FINISH' }] },
    delta: (c) => c['outputText'],
  },
  {
    modelId: 'meta.llama3-8b-instruct-v1:0',
    body: { prompt: SAID },
    text: (a) => a['generation'],
    usage: { prompt_token_count: 3, generation_token_count: 8, stop_reason: 'stop' },
    delta: (c) => c['generation'],
  },
  {
    modelId: 'mistral.mistral-7b-instruct-v0:2',
    body: { prompt: SAID },
    text: (a) => at(a, 'outputs.0.text'),
    usage: {},
    delta: (c) => at(c, 'outputs.0.text'),
  },
  {
    modelId: 'cohere.command-text-v14',
    body: { prompt: SAID },
    text: (a) => at(a, 'generations.0.text'),
    usage: {},
    delta: (c) => c['text'],
  },
  {
    modelId: 'cohere.command-r-v1:0',
    body: { message: SAID },
    text: (a) => a['text'],
    usage: {},
    delta: (c) => c['text'],
  },
];

let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
});
afterEach(() => {
  standIn.forget();
});
afterAll(() => standIn.close());

async function headersOf(
  modelId: string,
  body: Json,
): Promise<{ answer: Json; headers: Record<string, string> }> {
  const client = runtimeClient(standIn, 'h1');
  let headers: Record<string, string> = {};
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      headers = (result.response as { headers: Record<string, string> }).headers;
      return result;
    },
    { step: 'deserialize', priority: 'low' },
  );
  const result = await client.send(new InvokeModelCommand({ modelId, body: JSON.stringify(body) }));
  return { answer: JSON.parse(Buffer.from(result.body).toString()) as Json, headers };
}

describe.each(FAMILIES)('$modelId', ({ modelId, body, text, usage, delta, caches = false }) => {
  test('InvokeModel: the family’s body, counts in headers', async () => {
    const { answer, headers } = await headersOf(modelId, body);
    expect(text(answer)).toBe(ANSWER);
    expect(answer).toMatchObject(usage);
    expect(headers).toMatchObject({
      'x-amzn-bedrock-input-token-count': '3',
      'x-amzn-bedrock-output-token-count': '8',
    });
    expect('x-amzn-bedrock-cache-read-input-token-count' in headers).toBe(caches);
    expect(headers['x-stand-in']).toBe('merchant-bedrock-test');
  });

  test('InvokeModelWithResponseStream: the same text, counts in the last chunk', async () => {
    const answer = await runtimeClient(standIn).send(
      new InvokeModelWithResponseStreamCommand({ modelId, body: JSON.stringify(body) }),
    );
    const { events, error } = await drain(answer.body);
    expect(error).toBeUndefined();
    expect(answer.contentType).toBe('application/json');
    const chunks = events.map(
      (event) => JSON.parse(Buffer.from(event.chunk?.bytes ?? []).toString()) as Json,
    );
    expect(chunks.map((chunk) => textOf(delta(chunk))).join('')).toBe(ANSWER);
    const metrics = chunks.map((chunk) => chunk['amazon-bedrock-invocationMetrics']);
    expect(metrics.slice(0, -1).every((member) => member === undefined)).toBe(true);
    expect(metrics.at(-1)).toMatchObject({ inputTokenCount: 3, outputTokenCount: 8 });
    expect('cacheReadInputTokenCount' in (metrics.at(-1) as Json)).toBe(caches);
  });

  test('refuses a body of another family', async () => {
    const call = runtimeClient(standIn).send(new InvokeModelCommand({ modelId, body: '{"nothing":1}' }));
    expect(await refusal(call)).toMatchObject({ name: 'ValidationException', status: 400 });
  });
});

test.each([
  [
    'amazon.titan-embed-text-v2:0',
    { inputText: SAID, dimensions: 256 },
    'embedding.255',
    { inputTextTokenCount: 3 },
  ],
  ['cohere.embed-english-v3', { texts: [SAID], input_type: 'search_query' }, 'embeddings.0.1023', {}],
])('%s embeds, with an input count only', async (modelId, body, last, usage) => {
  const { answer, headers } = await headersOf(modelId, body);
  expect(typeof at(answer, last)).toBe('number');
  expect(answer).toMatchObject(usage);
  expect(headers['x-amzn-bedrock-input-token-count']).toBe('3');
  expect(headers).not.toHaveProperty('x-amzn-bedrock-output-token-count');
  expect(standIn.journal[0]?.usage).toMatchObject({ input: 3, output: 0 });
  const stream = runtimeClient(standIn).send(
    new InvokeModelWithResponseStreamCommand({ modelId, body: JSON.stringify(body) }),
  );
  expect(await refusal(stream)).toMatchObject({ name: 'ValidationException' });
});

test('Anthropic caching: header, body and journal agree', async () => {
  const system = [{ type: 'text', text: 'kept for long', cache_control: { type: 'ephemeral', ttl: '1h' } }];
  const body = {
    anthropic_version: 'bedrock-2023-05-31',
    max_tokens: 9,
    system,
    messages: [{ role: 'user', content: SAID }],
  };
  const modelId = 'us.anthropic.claude-sonnet-4-20250514-v1:0';
  const { answer, headers } = await headersOf(modelId, body);
  expect(at(answer, 'usage')).toMatchObject({
    input_tokens: 3,
    cache_creation_input_tokens: 3,
    cache_creation: { ephemeral_1h_input_tokens: 3 },
  });
  expect(headers['x-amzn-bedrock-cache-write-input-token-count']).toBe('3');
  expect(standIn.journal[0]?.usage).toEqual({
    input: 3,
    output: 8,
    cacheRead: 0,
    cacheWrite5m: 0,
    cacheWrite1h: 3,
  });
  expect((await headersOf(modelId, body)).headers['x-amzn-bedrock-cache-read-input-token-count']).toBe('3');
});

test('an input blocked by a guardrail: one chunk, no metrics, nothing ran', async () => {
  const body = { messages: [{ role: 'user', content: [{ text: 'STAND_IN_GUARDRAIL_BLOCK' }] }] };
  const answer = await runtimeClient(standIn).send(
    new InvokeModelWithResponseStreamCommand({
      modelId: 'amazon.nova-lite-v1:0',
      body: JSON.stringify(body),
    }),
  );
  const { events } = await drain(answer.body);
  expect(events).toHaveLength(1);
  const chunk = Buffer.from(events[0]?.chunk?.bytes ?? []).toString();
  expect(chunk).toContain('INTERVENED');
  expect(chunk).not.toContain('amazon-bedrock-invocationMetrics');
  expect(standIn.journal[0]).toMatchObject({ executed: false, outcome: 'completed' });
});

test('the journal holds the very bytes that were sent, and the metadata header', async () => {
  const body = ' { "prompt" : "odd   spacing",  "unknown": [1, 2] } ';
  await runtimeClient(standIn).send(
    new InvokeModelCommand({
      modelId: 'meta.llama3-8b-instruct-v1:0',
      body,
      requestMetadata: '{"merchant":"m-1"}',
    }),
  );
  expect(Buffer.from(standIn.journal[0]?.bodyBase64 ?? '', 'base64').toString()).toBe(body);
  expect(standIn.journal[0]).toMatchObject({ bodyBytes: body.length, requestMetadata: { merchant: 'm-1' } });
});

test('CountTokens takes an InvokeModel body too', async () => {
  const body = { anthropic_version: 'x', max_tokens: 1, messages: [{ role: 'user', content: SAID }] };
  const input = { invokeModel: { body: Buffer.from(JSON.stringify(body)) } };
  const counted = await runtimeClient(standIn).send(
    new CountTokensCommand({ modelId: 'anthropic.claude-3-haiku-20240307-v1:0', input }),
  );
  expect(counted.inputTokens).toBe(3);
});
