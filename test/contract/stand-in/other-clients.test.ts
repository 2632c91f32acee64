import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createAmazonBedrock } from '@ai-sdk/amazon-bedrock';
import { AnthropicBedrock } from '@anthropic-ai/bedrock-sdk';
import { generateText, streamText } from 'ai';
import { ALICE, CLAUDE, NOVA, REGION, startWithMerchants } from './clients.ts';
import type { StandIn } from '../../aws/stand-in.ts';

const ANSWER = `[${ALICE.accountId}] You said 2 words: hi all`;
let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
});
afterAll(() => standIn.close());

test("Anthropic's SDK, which leaves colons in the path", async () => {
  const client = new AnthropicBedrock({
    baseURL: standIn.url,
    awsRegion: REGION,
    awsAccessKey: ALICE.accessKeyId,
    awsSecretKey: ALICE.secretAccessKey,
    maxRetries: 0,
  });
  const body = { model: CLAUDE, max_tokens: 50, messages: [{ role: 'user' as const, content: 'hi all' }] };
  const answer = await client.messages.create(body);
  expect(answer).toMatchObject({ content: [{ text: ANSWER }], usage: { input_tokens: 2, output_tokens: 7 } });
  const streamed = await client.messages.stream(body).finalMessage();
  expect(streamed).toMatchObject({
    content: [{ text: ANSWER }],
    usage: { input_tokens: 2, output_tokens: 7 },
  });
  expect(standIn.journal.at(-1)?.path).toContain('v1:0/');
});

test('the AI SDK', async () => {
  const { accessKeyId, secretAccessKey } = ALICE;
  const model = createAmazonBedrock({ baseURL: standIn.url, region: REGION, accessKeyId, secretAccessKey })(
    NOVA,
  );
  expect((await generateText({ model, prompt: 'hi all', maxRetries: 0 })).text).toBe(ANSWER);
  expect(await streamText({ model, prompt: 'hi all', maxRetries: 0 }).text).toBe(ANSWER);
});
