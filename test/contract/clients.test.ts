import { AnthropicBedrock } from '@anthropic-ai/bedrock-sdk';
import { createAmazonBedrock } from '@ai-sdk/amazon-bedrock';
import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  CountTokensCommand,
  InvokeModelCommand,
  InvokeModelWithResponseStreamCommand,
} from '@aws-sdk/client-bedrock-runtime';
import type { BedrockRuntimeClientConfig } from '@aws-sdk/client-bedrock-runtime';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ChatBedrockConverse } from '@langchain/aws';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { generateText, streamText } from 'ai';
import { execFile, spawnSync } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { AWS } from '../support/aws-keys.ts';
import { onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const CLAUDE = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const PROMPT = 'Count to three, please';
const ACCOUNT = AWS.merchantA.accountId;

let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  merchant = await onboard(service, 'merchant-a');
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

/** Every call of a client arrived signed by the merchant's key and is settled in the ledger with what the stand-in reported. */
async function expectLedgerAgrees(calls: number): Promise<void> {
  const seen = runtimeCalls(service);
  expect(seen).toHaveLength(calls);
  for (const entry of seen)
    expect(entry).toMatchObject({ verified: true, accessKeyId: AWS.merchantA.accessKeyId, status: 200 });
  const { items } = (await merchant.get(`/usage/records?limit=${String(calls)}`)).json as {
    items: { awsRequestId: string; state: string; tokens: { input: number; output: number } }[];
  };
  const ledger = new Map(items.map((record) => [record.awsRequestId, record]));
  for (const { requestId, usage } of seen) {
    const expected = usage === undefined ? {} : { tokens: { input: usage.input, output: usage.output } };
    expect(ledger.get(requestId)).toMatchObject({ state: 'settled', ...expected });
  }
}

const handlers: [string, () => Partial<BedrockRuntimeClientConfig>][] = [
  ['its default HTTP/2 handler', () => ({})],
  ['NodeHttpHandler', () => ({ requestHandler: new NodeHttpHandler() })],
];

describe.each(handlers)('AWS SDK for JavaScript with %s', (_name, config) => {
  const newClient = () =>
    new BedrockRuntimeClient({
      endpoint: merchant.baseUrl,
      region: 'us-east-1',
      token: { token: merchant.token ?? '' },
      authSchemePreference: ['httpBearerAuth'],
      ...config(),
    });
  const messages = [{ role: 'user' as const, content: [{ text: PROMPT }] }];

  test('converse, converse-stream, invoke, invoke stream and count-tokens', async () => {
    const client = newClient();
    const whole = await client.send(new ConverseCommand({ modelId: CLAUDE, messages }));
    expect(whole.output?.message?.content?.[0]?.text).toContain(ACCOUNT);

    const { stream } = await client.send(new ConverseStreamCommand({ modelId: CLAUDE, messages }));
    let text = '';
    let metadata = 0;
    for await (const event of stream ?? []) {
      text += event.contentBlockDelta?.delta?.text ?? '';
      metadata += event.metadata?.usage?.totalTokens ?? 0;
    }
    expect(text).toBe(whole.output?.message?.content?.[0]?.text);
    expect(metadata).toBe(whole.usage?.totalTokens);

    const body = JSON.stringify({
      anthropic_version: 'bedrock-2023-05-31',
      max_tokens: 100,
      messages: [{ role: 'user', content: PROMPT }],
    });
    const invoked = await client.send(new InvokeModelCommand({ modelId: CLAUDE, body }));
    expect(JSON.parse(Buffer.from(invoked.body).toString())).toMatchObject({
      content: [{ text: expect.stringContaining(ACCOUNT) }],
    });

    const streamed = await client.send(new InvokeModelWithResponseStreamCommand({ modelId: CLAUDE, body }));
    const chunks: string[] = [];
    for await (const event of streamed.body ?? [])
      chunks.push(Buffer.from(event.chunk?.bytes ?? []).toString());
    expect(chunks.at(-1)).toContain('amazon-bedrock-invocationMetrics');

    const counted = await client.send(
      new CountTokensCommand({ modelId: CLAUDE, input: { converse: { messages } } }),
    );
    expect(counted.inputTokens).toBeGreaterThan(0);
    client.destroy();
    await expectLedgerAgrees(5);
  });

  test('an error arrives as the exception it is', async () => {
    service.standIn.fault({
      operation: 'Converse',
      status: 429,
      type: 'ThrottlingException',
      message: 'slow down',
      times: 'always',
    });
    const client = newClient();
    await expect(client.send(new ConverseCommand({ modelId: CLAUDE, messages }))).rejects.toMatchObject({
      name: 'ThrottlingException',
      message: 'slow down',
    });
    await expect(client.send(new ConverseCommand({ modelId: 'no/../such', messages }))).rejects.toMatchObject(
      { name: 'ValidationException' },
    );
    client.destroy();
  });
});

test('AWS SDK for JavaScript, configured by environment alone', async () => {
  const script = `
    const { BedrockRuntimeClient, ConverseCommand } = await import('@aws-sdk/client-bedrock-runtime');
    const reply = await new BedrockRuntimeClient({}).send(new ConverseCommand({ modelId: '${CLAUDE}', messages: [{ role: 'user', content: [{ text: 'hello' }] }] }));
    console.log(reply.output.message.content[0].text);`;
  const env = {
    PATH: process.env['PATH'] ?? '',
    AWS_REGION: 'us-east-1',
    AWS_BEARER_TOKEN_BEDROCK: merchant.token ?? '',
    AWS_ENDPOINT_URL_BEDROCK_RUNTIME: merchant.baseUrl,
  };
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    env,
    cwd: path.join(import.meta.dirname, '../..'),
  });
  expect(stdout).toContain(ACCOUNT);
  await expectLedgerAgrees(1);
});

test('@anthropic-ai/bedrock-sdk, whole and streamed', async () => {
  const client = new AnthropicBedrock({
    baseURL: merchant.baseUrl,
    apiKey: merchant.token ?? '',
    awsRegion: 'us-east-1',
  });
  const request = { model: CLAUDE, max_tokens: 100, messages: [{ role: 'user' as const, content: PROMPT }] };
  const whole = await client.messages.create(request);
  expect(JSON.stringify(whole.content)).toContain(ACCOUNT);
  let text = '';
  for await (const event of await client.messages.create({ ...request, stream: true })) {
    if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') text += event.delta.text;
  }
  expect(text).toContain(ACCOUNT);
  await expectLedgerAgrees(2);
});

test('@ai-sdk/amazon-bedrock, whole and streamed', async () => {
  const bedrock = createAmazonBedrock({
    baseURL: merchant.baseUrl,
    apiKey: merchant.token ?? '',
    region: 'us-east-1',
  });
  const whole = await generateText({ model: bedrock(CLAUDE), prompt: PROMPT });
  expect(whole.text).toContain(ACCOUNT);
  const streamed = streamText({ model: bedrock(CLAUDE), prompt: PROMPT });
  let text = '';
  for await (const part of streamed.textStream) text += part;
  expect(text).toBe(whole.text);
  await expectLedgerAgrees(2);
});

test('@langchain/aws, whole and streamed', async () => {
  const client = new BedrockRuntimeClient({
    endpoint: merchant.baseUrl,
    region: 'us-east-1',
    token: { token: merchant.token ?? '' },
    authSchemePreference: ['httpBearerAuth'],
  });
  const model = new ChatBedrockConverse({ model: CLAUDE, region: 'us-east-1', client });
  const whole = await model.invoke(PROMPT);
  expect(JSON.stringify(whole.content)).toContain(ACCOUNT);
  let text = '';
  for await (const chunk of await model.stream(PROMPT)) text += chunk.text;
  expect(text).toContain(ACCOUNT);
  client.destroy();
  await expectLedgerAgrees(2);
});

/** boto3 is Python's and not ours to install; where it is at hand, it must work too. */
const hasBoto3 = spawnSync('python3', ['-c', 'import boto3']).status === 0;
(hasBoto3 ? test : test.skip)('boto3, whole and streamed (where Python has it)', async () => {
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: process.env['HOME'] ?? '',
    AWS_REGION: 'us-east-1',
    AWS_DEFAULT_REGION: 'us-east-1',
    AWS_BEARER_TOKEN_BEDROCK: merchant.token ?? '',
    AWS_ENDPOINT_URL_BEDROCK_RUNTIME: merchant.baseUrl,
  };
  const { stdout } = await promisify(execFile)(
    'python3',
    [path.join(import.meta.dirname, 'boto3_client.py'), CLAUDE],
    { env },
  );
  expect(stdout.trim().split('\n')).toEqual([
    expect.stringContaining(ACCOUNT),
    expect.stringContaining(ACCOUNT),
    expect.stringContaining(ACCOUNT),
  ]);
  await expectLedgerAgrees(3);
});
