import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { BedrockRuntimeClient, ConverseCommand } from '@aws-sdk/client-bedrock-runtime';
import type { LogQuestion } from '../../src/bedrock/invocation-logs.ts';
import { LogBucket } from '../../src/bedrock/log-bucket-aws.ts';
import { LogGroup } from '../../src/bedrock/log-group-aws.ts';
import type { CallId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { AWS } from '../support/aws-keys.ts';

const { accountId, accessKeyId, secretAccessKey } = AWS.merchantA;
const LIMITS = { socketsMax: 2, connectMs: 5_000, firstByteMs: 5_000, totalMs: 10_000 };
const ID = '019ab000-0000-7000-8000-000000000001' as CallId;
const BUCKET = { s3: { bucket: 'a-bucket' } };
const GROUP = { cloudWatch: { logGroup: 'group' } };

let standIn: StandIn;

beforeAll(async () => {
  standIn = await startStandIn();
  standIn.addAccessKey(AWS.merchantA);
  standIn.logInvocations({ accountId, region: 'us-east-1', bucket: 'a-bucket', logGroup: 'group' });
  const client = new BedrockRuntimeClient({
    endpoint: standIn.url,
    region: 'us-east-1',
    credentials: { accessKeyId, secretAccessKey },
  });
  await client.send(
    new ConverseCommand({
      modelId: 'amazon.nova-micro-v1:0',
      messages: [{ role: 'user', content: [{ text: 'one two STAND_IN_WORDS=5' }] }],
      requestMetadata: { merchantBedrockCall: ID },
    }),
  );
  client.destroy();
});
afterAll(() => standIn.close());

function question(more: Partial<LogQuestion> = {}): LogQuestion {
  return {
    logs: BUCKET,
    credential: { kind: 'access-key', accessKeyId, secretAccessKey: new Secret(secretAccessKey) },
    accountId,
    region: 'us-east-1',
    calls: [{ id: ID, awsRequestId: undefined, fromMs: Date.now() - 60_000, toMs: Date.now() + 60_000 }],
    signal: AbortSignal.timeout(5_000),
    ...more,
  };
}

test.each([
  ['log group', GROUP],
  ['bucket', BUCKET],
] as const)('a %s: found, with its tokens and nothing else', async (_, logs) => {
  using reader =
    logs === GROUP
      ? new LogGroup({ ...LIMITS, endpoint: standIn.url })
      : new LogBucket({ ...LIMITS, endpoint: standIn.url, bytesMax: 1e6 });
  expect([...(await reader.find(question({ logs })))]).toEqual([
    [ID, { failed: false, tokens: { input: 3, output: 5, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 } }],
  ]);
  const earlier = [{ id: ID, awsRequestId: undefined, fromMs: 0, toMs: 3_600_000 }];
  expect(await reader.find(question({ logs, calls: earlier }))).toEqual(new Map());
  expect(await reader.find(question({ logs, signal: AbortSignal.abort() })).catch(String)).toContain(
    'could not be read',
  );
});

test('more bytes than one look-up reads: it ends, whatever is zipped', async () => {
  using reader = new LogBucket({ ...LIMITS, endpoint: standIn.url, bytesMax: 100 });
  await expect(reader.find(question())).rejects.toMatchObject({ reason: 'more bytes than are read at once' });
});

test('a bucket of another account is refused by its owner, not by us', async () => {
  using reader = new LogBucket({ ...LIMITS, endpoint: standIn.url, bytesMax: 1e6 });
  await expect(reader.find(question({ accountId: '999999999999' }))).rejects.toMatchObject({
    reason: 'AccessDenied',
  });
});

test('nobody there: unreadable, without an address or a key in the words', async () => {
  using reader = new LogGroup({ ...LIMITS, endpoint: 'http://127.0.0.1:1' });
  const error = (await reader.find(question({ logs: GROUP })).catch((caught: unknown) => caught)) as Error;
  expect(error.name).toBe('LogsUnreadable');
  expect(`${error.message} ${JSON.stringify(error)}`).not.toMatch(/127|AKIA/);
});
