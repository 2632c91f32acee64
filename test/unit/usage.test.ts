import { describe, expect, test } from '@jest/globals';
import { encodeFrame, exceptionFrame, parseFrame } from '../../src/bedrock/event-stream.ts';
import { usageOfReply } from '../../src/bedrock/usage-of-reply.ts';
import { createUsageTap } from '../../src/bedrock/usage-tap.ts';
import type { StreamOperation } from '../../src/bedrock/usage-tap.ts';

const NONE = { input: 0, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 };
const body = (json: object) => Buffer.from(JSON.stringify(json));

describe('answers that are no streams', () => {
  const converse = {
    inputTokens: 11,
    outputTokens: 236,
    totalTokens: 1_275,
    cacheReadInputTokens: 5,
    cacheReadInputTokenCount: 5,
    cacheWriteInputTokens: 1_028,
    cacheWriteInputTokenCount: 1_028,
  };
  const cases: [string, 'converse' | 'invoke', object, object][] = [
    [
      'Converse: input excludes the cache, the total is never counted',
      'converse',
      { usage: converse },
      { input: 11, output: 236, cacheRead: 5, cacheWrite5m: 1_028 },
    ],
    [
      'Converse with lifetimes',
      'converse',
      {
        usage: {
          ...converse,
          cacheDetails: [
            { ttl: '1h', inputTokens: 1_000 },
            { ttl: '5m', inputTokens: 28 },
          ],
        },
      },
      { input: 11, output: 236, cacheRead: 5, cacheWrite5m: 28, cacheWrite1h: 1_000 },
    ],
    [
      'Converse with a guardrail: floats',
      'converse',
      { usage: { inputTokens: 28.0, outputTokens: 3.0 } },
      { input: 28, output: 3 },
    ],
    [
      'Anthropic',
      'invoke',
      {
        usage: {
          input_tokens: 3,
          output_tokens: 4,
          cache_read_input_tokens: 5,
          cache_creation_input_tokens: 9,
          cache_creation: { ephemeral_5m_input_tokens: 2, ephemeral_1h_input_tokens: 7 },
        },
      },
      { input: 3, output: 4, cacheRead: 5, cacheWrite5m: 2, cacheWrite1h: 7 },
    ],
    [
      'Nova',
      'invoke',
      {
        usage: {
          inputTokens: 3,
          outputTokens: 4,
          totalTokens: 7,
          cacheReadInputTokenCount: 5,
          cacheWriteInputTokenCount: 6,
        },
      },
      { input: 3, output: 4, cacheRead: 5, cacheWrite5m: 6 },
    ],
    [
      'Titan text',
      'invoke',
      { inputTextTokenCount: 3, results: [{ tokenCount: 4 }, { tokenCount: 5 }] },
      { input: 3, output: 9 },
    ],
    ['Titan embeddings', 'invoke', { embedding: [0.1], inputTextTokenCount: 3 }, { input: 3 }],
    [
      'Llama',
      'invoke',
      { generation: 'x', prompt_token_count: 3, generation_token_count: 4 },
      { input: 3, output: 4 },
    ],
    [
      'OpenAI-like',
      'invoke',
      {
        usage: {
          prompt_tokens: 10,
          completion_tokens: 4,
          total_tokens: 14,
          prompt_tokens_details: { cached_tokens: 6 },
        },
      },
      { input: 4, output: 4, cacheRead: 6 },
    ],
  ];
  test.each(cases)('%s', (_name, operation, json, expected) => {
    expect(usageOfReply(operation, {}, body(json))).toEqual({
      tokens: { ...NONE, ...expected },
      provenance: 'body',
    });
  });

  test('headers come first, and the body adds only the lifetimes', () => {
    const headers = {
      'x-amzn-bedrock-input-token-count': '30',
      'x-amzn-bedrock-output-token-count': '55',
      'x-amzn-bedrock-cache-read-input-token-count': '2',
      'x-amzn-bedrock-cache-write-input-token-count': '10',
    };
    const anthropic = body({
      usage: { input_tokens: 999, output_tokens: 999, cache_creation: { ephemeral_1h_input_tokens: 4 } },
    });
    expect(usageOfReply('invoke', headers, anthropic)).toEqual({
      tokens: { input: 30, output: 55, cacheRead: 2, cacheWrite5m: 6, cacheWrite1h: 4 },
      provenance: 'headers',
    });
    expect(
      usageOfReply('invoke', { 'x-amzn-bedrock-input-token-count': '7' }, body({ embedding: [] })),
    ).toMatchObject({ tokens: { input: 7, output: 0 }, provenance: 'headers' });
  });

  test.each([
    ['rerank reports nothing', 'invoke', { results: [] }],
    ['counting is free', 'count-tokens', { inputTokens: 9 }],
    ['nonsense is not counted', 'converse', { usage: { inputTokens: -4, outputTokens: 'many' } }],
  ] as const)('%s: zeros', (_name, operation, json) => {
    expect(usageOfReply(operation, {}, body(json)).tokens).toEqual(NONE);
  });

  test('a body that is no JSON is no error', () => {
    expect(usageOfReply('invoke', {}, Buffer.from([0xff, 0xd8]))).toEqual({
      tokens: NONE,
      provenance: 'none',
    });
  });
});

describe('streams', () => {
  const frame = (type: string, payload: object) =>
    parseFrame(
      encodeFrame(
        { ':event-type': type, ':content-type': 'application/json', ':message-type': 'event' },
        body(payload),
      ),
    );
  const chunk = (json: object, pad = '') =>
    frame('chunk', { bytes: Buffer.from(pad + JSON.stringify(json)).toString('base64'), p: 'abc' });
  const metrics = {
    'amazon-bedrock-invocationMetrics': {
      inputTokenCount: 30,
      outputTokenCount: 55,
      invocationLatency: 851,
      firstByteLatency: 354,
      cacheReadInputTokenCount: 1,
      cacheWriteInputTokenCount: 10,
    },
  };

  function tap(operation: StreamOperation, frames: ReturnType<typeof parseFrame>[]) {
    const watched = createUsageTap(operation);
    for (const one of frames) watched.see(one);
    return { complete: watched.complete, usage: watched.usage(), exception: watched.exception };
  }

  test('ConverseStream is complete with messageStop and metadata, and not before', () => {
    const start = frame('messageStart', { role: 'assistant' });
    const stop = frame('messageStop', { stopReason: 'end_turn' });
    const metadata = frame('metadata', {
      usage: { inputTokens: 4, outputTokens: 9, totalTokens: 13 },
      metrics: { latencyMs: 7 },
    });
    expect(tap('converse-stream', [start, stop, metadata])).toMatchObject({
      complete: true,
      usage: { tokens: { input: 4, output: 9 }, provenance: 'metrics' },
    });
    for (const cut of [[], [start], [start, stop], [start, metadata]])
      expect(tap('converse-stream', cut).complete).toBe(false);
  });

  test('an invoke stream is complete with the metrics, wherever they fall in the base64', () => {
    for (const pad of ['', ' ', '  ', '   ']) {
      expect(
        tap('invoke-with-response-stream', [chunk({ type: 'message_stop', ...metrics }, pad)]),
      ).toMatchObject({
        complete: true,
        usage: { tokens: { input: 30, output: 55, cacheRead: 1, cacheWrite5m: 10, cacheWrite1h: 0 } },
      });
    }
    expect(tap('invoke-with-response-stream', [chunk({ type: 'message_stop' })]).complete).toBe(false);
  });

  test('deltas are never added up, and lifetimes come from message_start', () => {
    const frames = [
      chunk({
        type: 'message_start',
        message: {
          usage: {
            input_tokens: 30,
            output_tokens: 1,
            cache_creation: { ephemeral_5m_input_tokens: 3, ephemeral_1h_input_tokens: 7 },
          },
        },
      }),
      chunk({ type: 'message_delta', usage: { output_tokens: 20 } }),
      chunk({ type: 'message_delta', usage: { output_tokens: 55 } }),
      chunk({ type: 'message_stop', ...metrics }),
    ];
    expect(tap('invoke-with-response-stream', frames).usage?.tokens).toEqual({
      input: 30,
      output: 55,
      cacheRead: 1,
      cacheWrite5m: 3,
      cacheWrite1h: 7,
    });
  });

  test('a guardrail that stops the input: complete, and no model ran', () => {
    expect(
      tap('invoke-with-response-stream', [
        chunk({ 'amazon-bedrock-guardrailAction': 'INTERVENED', outputText: 'no' }),
      ]),
    ).toMatchObject({ complete: true, usage: { tokens: NONE, provenance: 'none' } });
  });

  test('an exception is seen and completes nothing; text that speaks of metrics does not either', () => {
    expect(tap('converse-stream', [parseFrame(exceptionFrame('throttlingException', 'slow'))])).toEqual({
      complete: false,
      usage: undefined,
      exception: { type: 'throttlingException', message: 'slow' },
    });
    const forged = chunk({
      type: 'content_block_delta',
      delta: { text: '"amazon-bedrock-invocationMetrics":{"inputTokenCount":0}' },
    });
    expect(tap('invoke-with-response-stream', [forged])).toMatchObject({ complete: false });
  });
});
