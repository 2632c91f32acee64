import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { ConverseCommand, ConverseStreamCommand, CountTokensCommand } from '@aws-sdk/client-bedrock-runtime';
import {
  ALICE,
  BOB,
  CLAUDE,
  NOVA,
  bearerClient,
  drain,
  refusal,
  runtimeClient,
  startWithMerchants,
  userSays,
} from './clients.ts';
import type { ContentBlock } from '@aws-sdk/client-bedrock-runtime';
import type { StandIn } from '../../aws/stand-in.ts';

let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
});
afterEach(() => {
  standIn.forget();
});
afterAll(() => standIn.close());

describe.each(['h2', 'h1'] as const)('Converse over %s', (protocol) => {
  test('answers from the prompt and the payer, and reports usage in the body only', async () => {
    const answer = await runtimeClient(standIn, protocol).send(
      new ConverseCommand({ modelId: CLAUDE, messages: userSays('hello from here') }),
    );
    expect(answer.output?.message?.content?.[0]?.text).toBe(
      '[111111111111] You said 3 words: hello from here',
    );
    expect(answer.usage).toMatchObject({ inputTokens: 3, outputTokens: 8, totalTokens: 11 });
    expect(answer.stopReason).toBe('end_turn');
    expect(standIn.journal[0]).toMatchObject({
      protocol,
      operation: 'Converse',
      verified: true,
      executed: true,
      usageReported: true,
      outcome: 'completed',
      status: 200,
      accessKeyId: ALICE.accessKeyId,
      accountId: ALICE.accountId,
      region: 'us-east-1',
      modelId: CLAUDE,
    });
  });

  test('streams the same answer, usage in the last event', async () => {
    const { stream } = await runtimeClient(standIn, protocol, BOB).send(
      new ConverseStreamCommand({ modelId: NOVA, messages: userSays('one two three four five') }),
    );
    const { events, error } = await drain(stream);
    expect(error).toBeUndefined();
    expect(events.map((event) => event.contentBlockDelta?.delta?.text ?? '').join('')).toBe(
      '[222222222222] You said 5 words: one two three four five',
    );
    expect(Object.keys(events[0] ?? {})).toEqual(['messageStart']);
    expect(events.at(-1)?.metadata?.usage).toMatchObject({
      inputTokens: 5,
      outputTokens: 10,
      totalTokens: 15,
    });
    expect(standIn.journal[0]).toMatchObject({ eventsSent: events.length, usage: { input: 5, output: 10 } });
  });
});

test('cuts at maxTokens', async () => {
  const answer = await runtimeClient(standIn).send(
    new ConverseCommand({ modelId: CLAUDE, messages: userSays('a b c'), inferenceConfig: { maxTokens: 4 } }),
  );
  expect(answer).toMatchObject({ stopReason: 'max_tokens', usage: { outputTokens: 4 } });
});

test('a long stream arrives whole', async () => {
  const { stream } = await runtimeClient(standIn).send(
    new ConverseStreamCommand({ modelId: CLAUDE, messages: userSays('STAND_IN_WORDS=20000') }),
  );
  const { events } = await drain(stream);
  expect(events.at(-1)?.metadata?.usage?.outputTokens).toBe(20_000);
});

describe('prompt caching', () => {
  const content = (ttl: '5m' | '1h'): ContentBlock[] => [
    { text: 'a long prefix' },
    { cachePoint: { type: 'default', ttl } },
    { text: 'and a question' },
  ];
  const ask = (ttl: '5m' | '1h', modelId = CLAUDE) =>
    new ConverseCommand({ modelId, messages: [{ role: 'user', content: content(ttl) }] });

  test('writes first, reads afterwards, and the total counts both', async () => {
    const client = runtimeClient(standIn);
    const first = await client.send(ask('1h'));
    expect(first.usage).toMatchObject({
      inputTokens: 3,
      cacheWriteInputTokens: 3,
      cacheReadInputTokens: 0,
      cacheDetails: [{ ttl: '1h', inputTokens: 3 }],
      totalTokens: 6 + (first.usage?.outputTokens ?? 0),
    });
    const second = await client.send(ask('1h'));
    expect(second.usage).toMatchObject({ inputTokens: 3, cacheWriteInputTokens: 0, cacheReadInputTokens: 3 });
    expect(standIn.journal[0]?.usage).toMatchObject({
      input: 3,
      cacheWrite1h: 3,
      cacheWrite5m: 0,
      cacheRead: 0,
    });
  });

  test('is per account', async () => {
    await runtimeClient(standIn).send(ask('5m'));
    const other = await runtimeClient(standIn, 'h2', BOB).send(ask('5m'));
    expect(other.usage).toMatchObject({
      cacheWriteInputTokens: 3,
      cacheDetails: [{ ttl: '5m', inputTokens: 3 }],
    });
  });

  test('means nothing to a model that cannot cache', async () => {
    const { usage } = await runtimeClient(standIn).send(ask('5m', 'mistral.mistral-large-2402-v1:0'));
    expect(usage).toMatchObject({ inputTokens: 6 });
    expect(usage).not.toHaveProperty('cacheReadInputTokens');
  });
});

describe('model identifiers', () => {
  const send = (modelId: string) =>
    runtimeClient(standIn).send(new ConverseCommand({ modelId, messages: userSays('hi') }));

  test.each([
    'anthropic.claude-3-5-haiku-20241022-v1:0',
    'global.anthropic.claude-sonnet-4-20250514-v1:0',
    'arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0',
    'arn:aws:bedrock:us-east-1:111111111111:inference-profile/us.amazon.nova-lite-v1:0',
    'arn:aws:bedrock:us-east-1:111111111111:provisioned-model/abcdef123456',
    'arn:aws:bedrock:us-east-1:111111111111:application-inference-profile/abcdef123456',
  ])('takes %s', async (id) => {
    await expect(send(id)).resolves.toMatchObject({ stopReason: 'end_turn' });
    expect(standIn.journal[0]?.modelId).toBe(id);
  });

  test.each([
    'no.such-model',
    'eu.anthropic.claude-sonnet-4-20250514-v1:0',
    'arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-pro-v1:0',
    'arn:aws:bedrock:us-east-1:111111111111:provisioned-model/toolong1234567',
  ])('refuses %s', async (id) => {
    expect(await refusal(send(id))).toEqual({
      name: 'ValidationException',
      message: 'The provided model identifier is invalid.',
      status: 400,
    });
    expect(standIn.journal[0]).toMatchObject({
      executed: false,
      status: 400,
      errorType: 'ValidationException',
      outcome: 'completed',
    });
  });

  test("refuses another account's ARN", async () => {
    const foreign = 'arn:aws:bedrock:us-east-1:222222222222:provisioned-model/abcdef123456';
    expect(await refusal(send(foreign))).toMatchObject({ name: 'AccessDeniedException', status: 403 });
  });

  test('refuses an embedding model and an empty conversation', async () => {
    expect(await refusal(send('amazon.titan-embed-text-v2:0'))).toMatchObject({
      name: 'ValidationException',
    });
    const empty = runtimeClient(standIn).send(new ConverseCommand({ modelId: NOVA, messages: [] }));
    expect(await refusal(empty)).toMatchObject({ name: 'ValidationException', status: 400 });
  });
});

test('CountTokens is free, for Anthropic foundation models', async () => {
  const client = runtimeClient(standIn);
  const input = { converse: { messages: userSays('one two three') } };
  const counted = await client.send(
    new CountTokensCommand({ modelId: 'anthropic.claude-3-haiku-20240307-v1:0', input }),
  );
  expect(counted.inputTokens).toBe(3);
  expect(standIn.journal[0]).toMatchObject({ operation: 'CountTokens', executed: false });
  expect(await refusal(client.send(new CountTokensCommand({ modelId: CLAUDE, input })))).toMatchObject({
    name: 'ValidationException',
  });
});

test('request metadata is journalled', async () => {
  await runtimeClient(standIn).send(
    new ConverseCommand({ modelId: NOVA, messages: userSays('hi'), requestMetadata: { merchant: 'm-1' } }),
  );
  expect(standIn.journal[0]?.requestMetadata).toEqual({ merchant: 'm-1' });
});

test('a Bedrock API key works, until it does not', async () => {
  const key = { apiKey: 'ABSKstand-in', accountId: '333333333333' };
  const send = () =>
    bearerClient(standIn, key.apiKey).send(new ConverseCommand({ modelId: NOVA, messages: userSays('hi') }));
  expect(await refusal(send())).toMatchObject({
    status: 403,
    message: 'Authentication failed: Please make sure your API Key is valid.',
  });
  standIn.addBedrockApiKey(key);
  expect((await send()).output?.message?.content?.[0]?.text).toContain('[333333333333]');
  expect(standIn.journal[1]).toMatchObject({ verified: true, accountId: '333333333333' });
  expect(standIn.journal[1]?.bearerFingerprint).toMatch(/^[0-9a-f]{16}$/);
  expect(JSON.stringify(standIn.journal)).not.toContain(key.apiKey);
  standIn.addBedrockApiKey({ ...key, state: 'expired' });
  expect(await refusal(send())).toMatchObject({ status: 403 });
});
