import { systemClock } from '../../src/domain/clock.ts';
import type { AwsCredential, ResolvedCredential } from '../../src/domain/credential.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { RuntimeCall, RuntimeReply } from '../../src/bedrock/runtime.ts';
import { BedrockRuntime } from '../../src/bedrock/runtime-aws.ts';
import type { BedrockRuntimeOptions } from '../../src/bedrock/runtime-aws.ts';
import type { StandIn } from '../aws/stand-in.ts';

const NOVA = 'amazon.nova-micro-v1:0';
const ACCOUNT = '111122223333';

export function newRuntime(endpoint: string, changes: Partial<BedrockRuntimeOptions> = {}): BedrockRuntime {
  return new BedrockRuntime({
    endpoint,
    socketsMax: 50,
    connectMs: 3_000,
    firstByteMs: 5_000,
    totalMs: 10_000,
    clientsMax: 100,
    clientIdleMs: 60_000,
    clock: systemClock,
    ...changes,
  });
}

/** An access key that exists nowhere but in the stand-in. */
export function accessKey(name: string, sessionToken?: string): AwsCredential & { kind: 'access-key' } {
  const prefix = sessionToken === undefined ? 'AKIA' : 'ASIA';
  return {
    kind: 'access-key',
    accessKeyId: `${prefix}${name.toUpperCase().padEnd(16, '0')}`,
    secretAccessKey: new Secret(`secret-of-${name}`.padEnd(40, '/')),
    ...(sessionToken === undefined ? {} : { sessionToken: new Secret(sessionToken) }),
  };
}

export function apiKey(name: string): AwsCredential {
  return { kind: 'bedrock-api-key', apiKey: new Secret(`ABSK${name}`) };
}

/** Makes the stand-in know a credential. */
export function register(aws: StandIn, credential: AwsCredential, accountId = ACCOUNT): void {
  if (credential.kind === 'bedrock-api-key') {
    aws.addBedrockApiKey({ apiKey: credential.apiKey.reveal(), accountId });
    return;
  }
  const { accessKeyId, secretAccessKey, sessionToken } = credential;
  aws.addAccessKey({
    accessKeyId,
    secretAccessKey: secretAccessKey.reveal(),
    accountId,
    ...(sessionToken === undefined ? {} : { sessionToken: sessionToken.reveal() }),
  });
}

export function resolved(credential: AwsCredential, poolKey: string): ResolvedCredential {
  return { source: 'stored', region: 'us-east-1', accountId: ACCOUNT, credential, poolKey };
}

export function newCall(credential: AwsCredential, changes: Partial<RuntimeCall> = {}): RuntimeCall {
  const messages = [{ role: 'user', content: [{ text: 'hello' }] }];
  return {
    merchantId: 'shop-a' as MerchantId,
    resolved: resolved(credential, 'stored/1'),
    operation: 'converse',
    modelId: NOVA,
    body: Buffer.from(JSON.stringify({ messages, inferenceConfig: { maxTokens: 20 } })),
    headers: { 'content-type': 'application/json' },
    signal: new AbortController().signal,
    ...changes,
  };
}

export async function bytesOf(reply: RuntimeReply): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of reply.body) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
