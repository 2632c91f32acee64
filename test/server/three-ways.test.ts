import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, directFields, directHeaders, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const WIRE = `/model/${encodeURIComponent(MODEL)}/converse`;

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

/** Every way to name a credential, in both shapes, with the key that must have signed. */
const ways = [
  {
    source: 'direct',
    key: AWS.merchantADirect,
    fields: () => directFields(),
    headers: () => directHeaders(),
  },
  {
    source: 'stored',
    key: AWS.merchantA,
    fields: () => ({ credentialId: merchant.credentialId }),
    headers: () => ({ 'x-bedrock-credential-id': merchant.credentialId }),
  },
  {
    source: 'service-default',
    key: AWS.serviceDefault,
    fields: () => ({ useServiceDefaults: true }),
    headers: () => ({ 'x-bedrock-use-service-defaults': 'true' }),
  },
  { source: 'stored', key: AWS.merchantA, fields: () => ({}), headers: () => ({}) },
] as const;

describe('each way signs with its own key and says so', () => {
  test.each(ways)('JSON route, $source', async ({ source, key, fields }) => {
    const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'hello there', ...fields() });
    expect(answer.json).toMatchObject({
      credentialSource: source,
      accountId: key.accountId,
      region: 'us-east-1',
    });
    expect(answer.json['text']).toContain(key.accountId);
    expectSignedOnceBy(key);
  });

  test.each(ways)('AWS-shaped route, $source', async ({ source, key, headers }) => {
    const answer = await merchant.post(WIRE, converseBody('hello there'), headers());
    expect(answer.status).toBe(200);
    expect(answer.headers.get('x-bedrock-credential-source')).toBe(source);
    expect(answer.headers.get('x-bedrock-credential-account')).toBe(key.accountId);
    expectSignedOnceBy(key);
  });

  test('a session carries direct credentials and its defaults, for its own API key only', async () => {
    const made = await merchant.post('/initialize', { modelId: MODEL, maxTokens: 20, ...directFields() });
    expect(made.json).toMatchObject({
      credentialSource: 'direct',
      accountId: AWS.merchantADirect.accountId,
      model: { status: 'ACTIVE' },
    });
    const { session } = made.json as { session: string };
    service.standIn.forget();
    const answer = await merchant.post('/chat', { prompt: 'hello', session });
    expect(answer.json).toMatchObject({ credentialSource: 'session', modelId: MODEL });
    expectSignedOnceBy(AWS.merchantADirect);

    const other = await onboard(service, 'session-thief', { awsKey: AWS.merchantB });
    const stolen = await other.post('/chat', { modelId: MODEL, prompt: 'hello', session });
    expect(stolen.json['code']).toBe('session.invalid');
    expect(runtimeCalls(service)).toHaveLength(1);
  });

  test('a Bedrock API key is stored and sent as a bearer token', async () => {
    const bedrockApiKey = 'ABSKQmVkcm9ja0FQSUtleS10ZXN0LWtleS1vbmx5';
    service.standIn.addBedrockApiKey({ apiKey: bedrockApiKey, accountId: AWS.merchantA.accountId });
    const stored = await merchant.post('/credentials', {
      kind: 'bedrock-api-key',
      name: 'api key',
      region: 'us-east-1',
      bedrockApiKey,
    });
    expect(stored.json).toMatchObject({ kind: 'bedrock-api-key', accountId: null });
    expect(stored.text).not.toContain(bedrockApiKey);
    const answer = await merchant.post(WIRE, converseBody('hello'), {
      'x-bedrock-credential-id': stored.json['id'] as string,
    });
    expect(answer.status).toBe(200);
    expect(runtimeCalls(service)[0]).toMatchObject({ verified: true });
    expect(runtimeCalls(service)[0]?.bearerFingerprint).toBeDefined();
  });
});

describe('no way falls back to another', () => {
  test('a stored credential that AWS refuses is an error, on both shapes, and no other key is tried', async () => {
    const victim = await onboard(service, 'revoked-at-aws', { awsKey: AWS.merchantB });
    service.standIn.forget();
    service.standIn.addAccessKey({ ...AWS.merchantB, state: 'deactivated' });
    const json = await victim.post('/chat', { modelId: MODEL, prompt: 'x' });
    expect(json).toMatchObject({ status: 422, json: { code: 'credential.refused_by_aws' } });
    const wire = await victim.post(WIRE, converseBody('x'));
    expect(wire.status).toBe(403);
    expect(wire.headers.get('x-amzn-errortype')).toContain('UnrecognizedClientException');
    expect(wire.headers.get('x-bedrock-error-code')).toBe('credential.refused_by_aws');
    expect(new Set(runtimeCalls(service).map((entry) => entry.accessKeyId))).toEqual(
      new Set([AWS.merchantB.accessKeyId]),
    );
    service.standIn.addAccessKey(AWS.merchantB);
  });

  test.each(['kms', 'secretsmanager'] as const)(
    'a stored credential that %s does not give out is an error',
    async (broken) => {
      const victim = await onboard(service, `no-${broken}`, { awsKey: AWS.merchantB });
      service.standIn.forget();
      service.standIn.fault({
        service: broken,
        status: 400,
        type: 'AccessDeniedException',
        message: 'no',
        times: 'always',
      });
      const answer = await victim.post('/chat', { modelId: MODEL, prompt: 'x' });
      expect(answer.json['code']).toBe('credential.unreadable');
      expect(runtimeCalls(service)).toEqual([]);
      service.standIn.forget();
    },
  );

  test('a credential that was deleted opens nothing, at once', async () => {
    const answer = await merchant.post('/credentials', {
      kind: 'access-key',
      name: 'short-lived',
      region: 'us-east-1',
      awsAccessKeyId: AWS.merchantADirect.accessKeyId,
      awsSecretAccessKey: AWS.merchantADirect.secretAccessKey,
    });
    const credentialId = answer.json['id'] as string;
    expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId })).status).toBe(200);
    expect((await merchant.send('DELETE', `/credentials/${credentialId}`)).status).toBe(204);
    service.standIn.forget();
    expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId })).json['code']).toBe(
      'credential.not_found',
    );
    expect(runtimeCalls(service)).toEqual([]);
  });

  test('what a merchant may not use is refused, although keys are there', async () => {
    const plain = await onboard(service, 'plain', {
      directAllowed: false,
      serviceDefaultsAllowed: false,
      regions: ['us-east-1'],
    });
    service.standIn.forget();
    const refused = [
      await plain.post('/chat', { modelId: MODEL, prompt: 'x', ...directFields() }),
      await plain.post('/chat', { modelId: MODEL, prompt: 'x', useServiceDefaults: true }),
      await plain.post('/initialize', { ...directFields() }),
    ];
    expect(refused.map((answer) => answer.json['code'])).toEqual(Array(3).fill('auth.source_not_allowed'));
    expect((await plain.post(WIRE, converseBody('x'), { 'x-bedrock-region': 'eu-west-1' })).status).toBe(400);
    expect(service.standIn.journal).toEqual([]);
  });
});

describe('a choice that is not exactly one is refused before anything happens', () => {
  const wrongBodies: [string, () => object][] = [
    ['two choices', () => ({ credentialId: merchant.credentialId, useServiceDefaults: true })],
    ['direct and stored', () => ({ ...directFields(), credentialId: merchant.credentialId })],
    ['half a pair', () => ({ awsAccessKeyId: AWS.merchantA.accessKeyId, awsRegion: 'us-east-1' })],
    ['no region', () => ({ ...directFields(), awsRegion: undefined })],
    ['an unlisted region', () => directFields(AWS.merchantADirect, 'us-gov-west-1')],
    ['a region that is a host', () => directFields(AWS.merchantADirect, 'evil.example/')],
    ['useServiceDefaults: false', () => ({ useServiceDefaults: false })],
    ['a misspelt name', () => ({ credentialID: merchant.credentialId })],
    ['a foreign form of id', () => ({ credentialId: '../../secrets' })],
  ];
  test.each(wrongBodies)('JSON: %s', async (_name, fields) => {
    const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', ...fields() });
    expect([400, 404]).toContain(answer.status);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(service.standIn.journal).toEqual([]);
  });

  const wrongHeaders: [string, () => Record<string, string>][] = [
    [
      'two choices',
      () => ({ 'x-bedrock-credential-id': merchant.credentialId, 'x-bedrock-use-service-defaults': 'true' }),
    ],
    ['half a pair', () => ({ 'x-bedrock-aws-access-key-id': AWS.merchantA.accessKeyId })],
    ['an unknown header of ours', () => ({ 'x-bedrock-credentialid': merchant.credentialId })],
    ['an unlisted region', () => directHeaders(AWS.merchantADirect, 'us-gov-west-1')],
  ];
  test.each(wrongHeaders)('AWS-shaped: %s', async (_name, headers) => {
    const answer = await merchant.post(WIRE, converseBody('x'), headers());
    expect(answer.status).toBe(400);
    expect(answer.headers.get('x-amzn-errortype')).toBe('ValidationException');
    expect(service.standIn.journal).toEqual([]);
  });

  test('one in the body and one in a header are two', async () => {
    const answer = await merchant.post(
      '/chat',
      { modelId: MODEL, prompt: 'x', useServiceDefaults: true },
      { 'x-bedrock-credential-id': merchant.credentialId },
    );
    expect(answer.json['code']).toBe('credential.choice_invalid');
    expect(service.standIn.journal).toEqual([]);
  });

  test.each([
    [
      'another account',
      `arn:aws:bedrock:us-east-1:${AWS.merchantB.accountId}:provisioned-model/abcdefghijkl`,
    ],
    ['another region', `arn:aws:bedrock:eu-west-1:${AWS.merchantA.accountId}:provisioned-model/abcdefghijkl`],
  ])('an ARN of %s never leaves, raw or encoded', async (_name, arn) => {
    for (const id of [arn, encodeURIComponent(arn)]) {
      const answer = await merchant.post(`/model/${id}/converse`, converseBody('x'));
      expect(answer.status).toBe(403);
      expect(answer.headers.get('x-amzn-errortype')).toBe('AccessDeniedException');
    }
    expect(runtimeCalls(service)).toEqual([]);
  });

  test("an ARN of the merchant's own goes through, raw or encoded", async () => {
    const arn = `arn:aws:bedrock:us-east-1:${AWS.merchantA.accountId}:provisioned-model/abcdefghijkl`;
    service.standIn.addModelArn(arn, MODEL);
    for (const id of [arn, encodeURIComponent(arn)]) {
      expect((await merchant.post(`/model/${id}/converse`, converseBody('x'))).status).toBe(200);
    }
    expect(runtimeCalls(service).map((entry) => entry.path)).toEqual(
      Array(2).fill(`/model/${encodeURIComponent(arn)}/converse`),
    );
  });
});

function expectSignedOnceBy(key: { accessKeyId: string }): void {
  expect(
    runtimeCalls(service).map(({ accessKeyId, verified, status }) => ({ accessKeyId, verified, status })),
  ).toEqual([{ accessKeyId: key.accessKeyId, verified: true, status: 200 }]);
}
