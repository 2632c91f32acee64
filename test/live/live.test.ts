import {
  BedrockRuntimeClient,
  ConverseCommand,
  ConverseStreamCommand,
  InvokeModelCommand,
} from '@aws-sdk/client-bedrock-runtime';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { readConfig } from '../../src/config/env.ts';
import { build } from '../../src/container.ts';
import { Secret } from '../../src/domain/secret.ts';
import { newLogger } from '../../src/observability/logger.ts';
import type { Service } from '../../src/service.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { converseBody, MerchantPerson, Person } from '../support/people.ts';
import { environmentFor } from '../support/service-environment.ts';

const NEEDED = {
  LIVE_AWS_ACCESS_KEY_ID:
    "a merchant's access key: may bedrock:InvokeModel and InvokeModelWithResponseStream on the model",
  LIVE_AWS_SECRET_ACCESS_KEY: 'its secret',
  LIVE_AWS_REGION: 'its region',
  LIVE_MODEL_ID:
    'a text model or inference profile that the account may use; each run makes about ten calls of 20 tokens',
  LIVE_KMS_KEY_ID: 'a KMS key, for the vault (kms:GenerateDataKey, kms:Decrypt)',
  LIVE_SERVICE_ACCESS_KEY_ID: "the service's own access key: that KMS key, and Secrets Manager below mbk/*",
  LIVE_SERVICE_SECRET_ACCESS_KEY: 'its secret',
} as const;
const env = process.env as Partial<Record<keyof typeof NEEDED, string>>;
const missing = Object.entries(NEEDED).filter(([name]) => !env[name as keyof typeof NEEDED]);
const live = missing.length === 0 ? test : test.skip;

if (missing.length > 0) {
  console.log(
    `The live suite talks to real AWS and is skipped. It would need:\n${missing.map(([name, what]) => `  ${name}: ${what}`).join('\n')}\nLIVE_AWS_SESSION_TOKEN is taken too, for temporary keys. LIVE_ENDPOINT replaces all of AWS, to try the suite itself on the stand-in.`,
  );
}

let service: Service;
let merchant: MerchantPerson;
let database: TestDatabase & AsyncDisposable;
const direct = {
  awsAccessKeyId: env.LIVE_AWS_ACCESS_KEY_ID,
  awsSecretAccessKey: env.LIVE_AWS_SECRET_ACCESS_KEY,
  ...(process.env['LIVE_AWS_SESSION_TOKEN'] && { awsSessionToken: process.env['LIVE_AWS_SESSION_TOKEN'] }),
  awsRegion: env.LIVE_AWS_REGION,
};
const modelId = env.LIVE_MODEL_ID ?? '';

beforeAll(async () => {
  if (missing.length > 0) return;
  database = await newTestDatabase();
  const base: Record<string, string> = Object.fromEntries(
    Object.entries(environmentFor(database.url, process.env['LIVE_ENDPOINT'] ?? '', '')).filter(
      ([, value]) => value !== '',
    ),
  );
  const settings = {
    ...base,
    AWS_REGION: env.LIVE_AWS_REGION,
    VAULT_KMS_KEY_ID: env.LIVE_KMS_KEY_ID,
    DEPLOYMENT_NAME: 'live-test',
    SERVICE_AWS_ACCESS_KEY_ID: env.LIVE_SERVICE_ACCESS_KEY_ID,
    SERVICE_AWS_SECRET_ACCESS_KEY: env.LIVE_SERVICE_SECRET_ACCESS_KEY,
    SERVICE_DEFAULT_REGION: env.LIVE_AWS_REGION,
    SERVICE_DEFAULT_ACCESS_KEY_ID: direct.awsAccessKeyId,
    SERVICE_DEFAULT_SECRET_ACCESS_KEY: direct.awsSecretAccessKey,
    ...(direct.awsSessionToken !== undefined && { SERVICE_DEFAULT_SESSION_TOKEN: direct.awsSessionToken }),
  };
  const { config, secrets } = readConfig(settings);
  service = await build(config, secrets, { logger: newLogger('silent') });
  const url = `http://127.0.0.1:${String((await service.listen()).port)}`;
  const pepper = new Secret(Buffer.from(base['TOKEN_PEPPER'] ?? '', 'base64'));
  const operator = await createOperatorKey({
    adminUrl: database.adminUrl,
    pepper,
    environment: 'test',
    name: 'live',
    scopes: ['ops:merchants:write'],
    expiresInDays: 1,
  });
  const { awsRegion: region, ...material } = direct;
  const made = await new Person(url, operator.token).post('/api/ops/merchants', {
    id: 'live-merchant',
    name: 'Live',
    directAllowed: true,
    serviceDefaultsAllowed: true,
    apiKey: { name: 'live' },
    credential: { kind: 'access-key', name: 'live', region, ...material },
  });
  expect(made.status).toBe(201);
  const { apiKey, credentialId } = made.json as {
    apiKey: { id: string; token: string };
    credentialId: string;
  };
  merchant = new MerchantPerson(url, {
    merchantId: 'live-merchant',
    token: apiKey.token,
    apiKeyId: apiKey.id,
    credentialId,
  });
});

afterAll(async () => {
  if (missing.length > 0) return;
  await merchant.send('DELETE', `/credentials/${merchant.credentialId}`);
  await service.shutDown();
  await service[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

live('the three ways', async () => {
  const chat = (choice: object) =>
    merchant.post('/chat', { modelId, prompt: 'Say hello.', maxTokens: 20, ...choice });
  expect((await chat(direct)).json).toMatchObject({ credentialSource: 'direct' });
  expect((await chat({ credentialId: merchant.credentialId })).json).toMatchObject({
    credentialSource: 'stored',
  });
  expect((await chat({ useServiceDefaults: true })).json).toMatchObject({
    credentialSource: 'service-default',
  });
});

live('an unmodified client: whole, streamed, and as bytes', async () => {
  const client = new BedrockRuntimeClient({
    endpoint: merchant.baseUrl,
    region: env.LIVE_AWS_REGION ?? '',
    token: { token: merchant.token ?? '' },
    authSchemePreference: ['httpBearerAuth'],
  });
  const messages = [{ role: 'user' as const, content: [{ text: 'Say hello.' }] }];
  const inferenceConfig = { maxTokens: 20 };
  const whole = await client.send(new ConverseCommand({ modelId, messages, inferenceConfig }));
  expect(whole.usage?.totalTokens).toBeGreaterThan(0);
  const { stream } = await client.send(new ConverseStreamCommand({ modelId, messages, inferenceConfig }));
  let total = 0;
  for await (const event of stream ?? []) total += event.metadata?.usage?.totalTokens ?? 0;
  expect(total).toBeGreaterThan(0);
  await expect(
    client.send(new InvokeModelCommand({ modelId, body: '{"not":"a body"}' })),
  ).rejects.toMatchObject({ name: 'ValidationException' });
  client.destroy();
});

live('every call is in the ledger with what AWS reported', async () => {
  await merchant.post(`/model/${encodeURIComponent(modelId)}/converse`, converseBody('Say hello.', 20));
  const { items } = (await merchant.get('/usage/records')).json as {
    items: { state: string; tokens: { input: number; output: number } }[];
  };
  expect(items[0]).toMatchObject({ state: 'settled' });
  expect(items[0]?.tokens.input).toBeGreaterThan(0);
  expect(items[0]?.tokens.output).toBeGreaterThan(0);
});
