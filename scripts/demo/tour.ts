import { BedrockRuntimeClient, ConverseStreamCommand } from '@aws-sdk/client-bedrock-runtime';
import { formatDollars } from '../../src/ledger/price.ts';
import { AWS } from '../../test/support/aws-keys.ts';
import type { DemoFacts } from './house.ts';

const MODEL = 'amazon.nova-micro-v1:0';

interface ChatReply {
  text: string;
  credentialSource: string;
  accountId: string;
  usage: { inputTokens: number; outputTokens: number };
}
interface Usage {
  groups: {
    key: { source: string };
    calls: { settled: number };
    tokens: { input: number; output: number };
  }[];
}
interface RecordPage {
  items: { state: string; operation: string; modelId: string; costNanoUsd: number | null }[];
}
interface AuditPage {
  items: { seq: number; at: string; actor: string; action: string; resource: string }[];
}

/** Runs the main job in each of its ways and prints what came of it. */
export async function tour(facts: DemoFacts): Promise<void> {
  process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true';
  const { accessKeyId: awsAccessKeyId, secretAccessKey: awsSecretAccessKey } = AWS.merchantADirect;
  console.log('\nThe main job, in each of the three ways:\n');
  await chat(facts, 'direct', { awsAccessKeyId, awsSecretAccessKey, awsRegion: 'us-east-1' });
  await chat(facts, 'stored', { credentialId: facts.credentialId });
  await chat(facts, 'service default', { useServiceDefaults: true });
  console.log('\nAn unmodified @aws-sdk/client-bedrock-runtime, streaming over HTTP/2:\n');
  await streamWithSdk(facts);
  await printUsage(facts);
  await printCosts(facts);
  await printAudit(facts);
}

async function chat(facts: DemoFacts, way: string, choice: object): Promise<void> {
  const reply = await ask<ChatReply>(facts, '/chat', {
    modelId: MODEL,
    prompt: `Say hello, ${way}`,
    ...choice,
  });
  const { inputTokens, outputTokens } = reply.usage;
  console.log(
    `  ${way.padEnd(16)} source ${reply.credentialSource}, account ${reply.accountId}, ${String(inputTokens)} tokens in, ${String(outputTokens)} out`,
  );
  console.log(`  ${' '.repeat(16)} “${reply.text}”`);
}

async function streamWithSdk(facts: DemoFacts): Promise<void> {
  const client = new BedrockRuntimeClient({
    endpoint: `${facts.baseUrl}/api/merchants/${facts.merchantId}/bedrock`,
    region: 'us-east-1',
    token: { token: facts.token },
    authSchemePreference: ['httpBearerAuth'],
  });
  try {
    const command = new ConverseStreamCommand({
      modelId: MODEL,
      messages: [{ role: 'user', content: [{ text: 'Count to three, please' }] }],
    });
    const { stream } = await client.send(command);
    process.stdout.write('  “');
    for await (const event of stream ?? []) {
      process.stdout.write(event.contentBlockDelta?.delta?.text ?? '');
      if (event.metadata?.usage)
        process.stdout.write(`”  (${String(event.metadata.usage.totalTokens)} tokens in all)\n`);
    }
  } finally {
    client.destroy();
  }
}

async function printUsage(facts: DemoFacts): Promise<void> {
  const usage = await ask<Usage>(facts, '/usage?timeframe=day&groupBy=source');
  console.log('\nUsage today, by credential source:\n');
  for (const { key, calls, tokens } of usage.groups) {
    console.log(
      `  ${key.source.padEnd(16)} ${String(calls.settled)} settled, ${String(tokens.input)} tokens in, ${String(tokens.output)} out`,
    );
  }
}

async function printCosts(facts: DemoFacts): Promise<void> {
  const { items } = await ask<RecordPage>(facts, '/usage/records');
  console.log('\nThe ledger, with what each call would cost by the starter price book:\n');
  for (const { state, operation, modelId, costNanoUsd } of items.reverse()) {
    const cost = costNanoUsd === null ? 'unpriced' : `${formatDollars(BigInt(costNanoUsd))} USD`;
    console.log(`  ${state.padEnd(8)} ${operation.padEnd(16)} ${modelId.padEnd(24)} ${cost}`);
  }
}

async function printAudit(facts: DemoFacts): Promise<void> {
  const { items } = await ask<AuditPage>(facts, '/audit');
  console.log('\nThe audit trail:\n');
  for (const event of items.reverse())
    console.log(
      `  ${String(event.seq).padStart(3)}  ${event.at}  ${event.action.padEnd(24)} ${event.resource}  by ${event.actor}`,
    );
}

async function ask<T>(facts: DemoFacts, route: string, body?: object): Promise<T> {
  const response = await fetch(`${facts.baseUrl}/api/merchants/${facts.merchantId}/bedrock${route}`, {
    headers: { authorization: `Bearer ${facts.token}`, ...(body && { 'content-type': 'application/json' }) },
    ...(body && { method: 'POST', body: JSON.stringify(body) }),
  });
  const reply = (await response.json()) as T & { code?: string; detail?: string };
  if (!response.ok)
    throw new Error(
      `${route} was answered ${String(response.status)}: ${reply.code ?? ''} ${reply.detail ?? ''}`,
    );
  return reply;
}
