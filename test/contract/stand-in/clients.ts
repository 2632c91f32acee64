import { BedrockClient } from '@aws-sdk/client-bedrock';
import { BedrockRuntimeClient } from '@aws-sdk/client-bedrock-runtime';
import { KMSClient } from '@aws-sdk/client-kms';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { STSClient } from '@aws-sdk/client-sts';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { startStandIn } from '../../aws/stand-in.ts';
import type { StandIn } from '../../aws/stand-in.ts';

/** Two merchants, each with an account and a key; one region. */
export const REGION = 'us-east-1';
export const ALICE = {
  accessKeyId: 'AKIAALICE00000000000',
  secretAccessKey: 'alice/secret+key',
  accountId: '111111111111',
};
export const BOB = {
  accessKeyId: 'AKIABOB0000000000000',
  secretAccessKey: 'bob/secret+key',
  accountId: '222222222222',
};
export const CLAUDE = 'us.anthropic.claude-sonnet-4-20250514-v1:0';
export const NOVA = 'amazon.nova-micro-v1:0';

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

export async function startWithMerchants(): Promise<StandIn> {
  const standIn = await startStandIn();
  standIn.addAccessKey(ALICE);
  standIn.addAccessKey(BOB);
  return standIn;
}

function settings({ url }: StandIn, credentials: Credentials) {
  return { endpoint: url, region: REGION, credentials, maxAttempts: 1 };
}

/** `h2` is the SDK's own default; `h1` is what users behind older proxies choose. */
export function runtimeClient(
  standIn: StandIn,
  protocol: 'h1' | 'h2' = 'h2',
  credentials: Credentials = ALICE,
): BedrockRuntimeClient {
  const handler = protocol === 'h1' ? { requestHandler: new NodeHttpHandler() } : {};
  return new BedrockRuntimeClient({ ...settings(standIn, credentials), ...handler });
}

/** A client with a Bedrock API key instead of access keys. */
export function bearerClient(standIn: StandIn, token: string): BedrockRuntimeClient {
  return new BedrockRuntimeClient({
    endpoint: standIn.url,
    region: REGION,
    maxAttempts: 1,
    token: { token },
    authSchemePreference: ['httpBearerAuth'],
  });
}

export function bedrockClient(standIn: StandIn, credentials: Credentials = ALICE): BedrockClient {
  return new BedrockClient(settings(standIn, credentials));
}

export function kmsClient(standIn: StandIn, credentials: Credentials = ALICE): KMSClient {
  return new KMSClient(settings(standIn, credentials));
}

export function secretsClient(standIn: StandIn, credentials: Credentials = ALICE): SecretsManagerClient {
  return new SecretsManagerClient(settings(standIn, credentials));
}

export function stsClient(standIn: StandIn, credentials: Credentials = ALICE): STSClient {
  return new STSClient(settings(standIn, credentials));
}

export function userSays(text: string) {
  return [{ role: 'user' as const, content: [{ text }] }];
}

/** What an SDK call was refused with. */
export async function refusal(
  call: Promise<unknown>,
): Promise<{ name: string; message: string; status: number | undefined }> {
  try {
    await call;
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    return { name, message, status: $metadata?.httpStatusCode };
  }
  throw new Error('the call was not refused');
}

/** Reads a stream to its end, or to what broke it. */
export async function drain<T>(
  stream: AsyncIterable<T> | undefined,
): Promise<{ events: T[]; error: Error | undefined }> {
  const events: T[] = [];
  try {
    for await (const event of stream ?? []) events.push(event);
  } catch (error) {
    return { events, error: error as Error };
  }
  return { events, error: undefined };
}
