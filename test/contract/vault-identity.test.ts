import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { AwsIdentityCheck } from '../../src/credentials/identity-aws.ts';
import { sdkOptions } from '../../src/credentials/sdk-options-aws.ts';
import type { AccessKey } from '../../src/domain/credential.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { StandIn } from '../aws/stand-in.ts';
import {
  API_KEY,
  A_ACCOUNT,
  CANARIES,
  LONG_LIVED,
  SERVICE_KEY,
  TEMPORARY,
  codeOf,
  failure,
  known,
  spellings,
  startAws,
  withEnvironment,
} from './vault-setup.ts';

let aws: StandIn;
let identity: AwsIdentityCheck;

beforeAll(async () => {
  aws = await startAws();
  identity = new AwsIdentityCheck({
    regions: ['us-east-1', 'eu-west-1'],
    endpoints: { sts: aws.url, bedrock: aws.url },
    requestTimeoutMs: 1_500,
  });
});
afterAll(() => aws.close());
beforeEach(() => {
  aws.forget();
  aws.addAccessKey(known(LONG_LIVED, A_ACCOUNT));
  aws.addAccessKey(known(TEMPORARY, A_ACCOUNT));
  aws.addBedrockApiKey({ apiKey: API_KEY.apiKey.reveal(), accountId: A_ACCOUNT });
});

describe('AWS says who a credential is', () => {
  test.each([LONG_LIVED, TEMPORARY])('access key %#: account and ARN, by one STS call', async (key) => {
    const found = await identity.checkCredential(key, 'eu-west-1');
    expect(found).toEqual({ accountId: A_ACCOUNT, arn: `arn:aws:iam::${A_ACCOUNT}:user/stand-in` });
    expect(aws.journal).toHaveLength(1);
    expect(aws.journal[0]).toMatchObject({
      service: 'sts',
      operation: 'GetCallerIdentity',
      region: 'eu-west-1',
      accessKeyId: key.accessKeyId,
      verified: true,
    });
  });

  test('a Bedrock API key: only that it works, by a list that costs nothing', async () => {
    const found = await identity.checkCredential(API_KEY, 'us-east-1');
    expect(found).toEqual({ accountId: undefined, arn: undefined });
    expect(aws.journal).toHaveLength(1);
    expect(aws.journal[0]).toMatchObject({
      service: 'bedrock',
      operation: 'ListFoundationModels',
      verified: true,
      executed: false,
    });
    expect(aws.journal[0]?.accessKeyId).toBeUndefined();
    expect(aws.journal[0]?.bearerFingerprint).toBeDefined();
  });
});

describe('a refusal says which and what to do', () => {
  const secretOf = (key: AccessKey) => key.secretAccessKey.reveal();
  const CASES: readonly [string, () => AccessKey, string, RegExp][] = [
    [
      'a key AWS does not know',
      () => ({ ...LONG_LIVED, accessKeyId: 'AKIAUNKNOWN000000000' }),
      'unknown-key',
      /create a new one/,
    ],
    [
      'a wrong secret',
      () => ({ ...LONG_LIVED, secretAccessKey: new Secret(secretOf(LONG_LIVED).replace('AA', 'AB')) }),
      'bad-signature',
      /Copy the secret again/,
    ],
    [
      'a wrong session token',
      () => ({ ...TEMPORARY, sessionToken: new Secret('another-token-00000') }),
      'unknown-key',
      /session token/,
    ],
    [
      'expired keys',
      () => {
        aws.addAccessKey({ ...known(TEMPORARY, A_ACCOUNT), state: 'expired' });
        return TEMPORARY;
      },
      'expired',
      /Fetch new ones/,
    ],
    [
      'deactivated keys',
      () => {
        aws.addAccessKey({ ...known(LONG_LIVED, A_ACCOUNT), state: 'deactivated' });
        return LONG_LIVED;
      },
      'unknown-key',
      /deactivated/,
    ],
    [
      "the root user's keys",
      () => {
        aws.addAccessKey({ ...known(LONG_LIVED, A_ACCOUNT), arn: `arn:aws:iam::${A_ACCOUNT}:root` });
        return LONG_LIVED;
      },
      'root',
      /root user.*Delete them/,
    ],
    [
      'a region that the account has not enabled',
      () => {
        aws.fault({ service: 'sts', status: 403, type: 'RegionDisabledException', times: 'always' });
        return LONG_LIVED;
      },
      'region-disabled',
      /Enable it/,
    ],
    [
      'a policy in the way',
      () => {
        aws.fault({ service: 'sts', status: 403, type: 'AccessDenied', times: 'always' });
        return LONG_LIVED;
      },
      'denied',
      /service control policy/,
    ],
  ];

  test.each(CASES)('%s', async (_name, key, refusal, remedy) => {
    const error = await failure(identity.checkCredential(key(), 'us-east-1'));
    expect(error).toMatchObject({ code: 'credential.refused_by_aws', options: { extra: { refusal } } });
    expect(error.detail).toMatch(remedy);
    expectNoLeak(error);
  });

  test('Bedrock API keys: unknown, deactivated, expired or not allowed', async () => {
    const keys = [
      () => ({ ...API_KEY, apiKey: new Secret('ABSKunknown') }),
      () => {
        aws.addBedrockApiKey({ apiKey: API_KEY.apiKey.reveal(), accountId: A_ACCOUNT, state: 'expired' });
        return API_KEY;
      },
      () => {
        const deny = ['bedrock:ListFoundationModels'];
        aws.addBedrockApiKey({ apiKey: API_KEY.apiKey.reveal(), accountId: A_ACCOUNT, deny });
        return API_KEY;
      },
    ];
    for (const key of keys) {
      const error = await failure(identity.checkCredential(key(), 'us-east-1'));
      expect(error.code).toBe('credential.refused_by_aws');
      expect(error.detail).toContain('bedrock:CallWithBearerToken');
      expectNoLeak(error);
    }
  });
});

describe('when AWS gives no answer, nothing is assumed', () => {
  test.each([
    ['5xx', { status: 503, type: 'ServiceUnavailable' }],
    ['throttling', { status: 400, type: 'Throttling' }],
    ['a reset', { reset: true }],
    ['silence', { hangHeaders: true }],
  ] as const)('%s', async (_name, fault) => {
    aws.fault({ ...fault, times: 'always' });
    for (const credential of [LONG_LIVED, API_KEY]) {
      const error = await failure(identity.checkCredential(credential, 'us-east-1'));
      expect(error).toMatchObject({ code: 'upstream.unreachable', options: { retryAfterSeconds: 5 } });
      expectNoLeak(error);
    }
    expect(aws.journal).toHaveLength(4);
  });

  test('one failed attempt is made good by the second', async () => {
    aws.fault({ status: 500, type: 'InternalFailure', times: 1 });
    await expect(identity.checkCredential(LONG_LIVED, 'us-east-1')).resolves.toBeDefined();
  });
});

describe('the right signer', () => {
  const AMBIENT = {
    AWS_ACCESS_KEY_ID: SERVICE_KEY.accessKeyId,
    AWS_BEARER_TOKEN_BEDROCK: 'ABSKambient',
    AWS_ENDPOINT_URL: 'http://127.0.0.1:9',
    AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:9',
    AWS_AUTH_SCHEME_PREFERENCE: 'noAuth,httpBearerAuth,sigv4a,sigv4',
    AWS_REGION: 'eu-west-1',
    AWS_SESSION_TOKEN: 'ambient-session-token',
  };

  test('is the credential, under every combination of ambient variables', async () => {
    const variables = Object.entries(AMBIENT);
    for (let set = 0; set < 2 ** variables.length; set++) {
      const chosen = Object.fromEntries(variables.filter((_variable, bit) => (set >> bit) & 1));
      const credential = [LONG_LIVED, TEMPORARY, API_KEY][set % 3] ?? LONG_LIVED;
      await withEnvironment({ ...chosen, AWS_SECRET_ACCESS_KEY: 'ambient-secret' }, async () => {
        await identity.checkCredential(credential, 'us-east-1');
      });
      expect(aws.journal.at(-1)).toMatchObject({
        verified: true,
        accountId: A_ACCOUNT,
        ...(credential.kind === 'access-key' && { accessKeyId: credential.accessKeyId, region: 'us-east-1' }),
      });
    }
    expect(aws.journal).toHaveLength(2 ** variables.length);
    expect(aws.journal.filter(({ accessKeyId }) => accessKeyId === SERVICE_KEY.accessKeyId)).toEqual([]);
  });

  test('a credential that lacks a part is stopped before the SDK could look for another', async () => {
    const broken = [
      { ...LONG_LIVED, secretAccessKey: new Secret('') },
      { ...LONG_LIVED, secretAccessKey: new Secret(undefined as unknown as string) },
      { ...LONG_LIVED, accessKeyId: '' },
      { ...LONG_LIVED, accessKeyId: undefined as unknown as string },
      { ...TEMPORARY, sessionToken: new Secret('') },
      { ...API_KEY, apiKey: new Secret('') },
    ];
    for (const credential of broken)
      await expect(identity.checkCredential(credential, 'us-east-1')).rejects.toThrow(TypeError);
    expect(aws.journal).toEqual([]);
  });

  test('the last gate stops a request for another host, scheme or port, or by another key', async () => {
    const target = {
      region: 'us-east-1',
      reach: 'anywhere' as const,
      endpoint: aws.url,
      maxAttempts: 1,
      requestTimeoutMs: 1_500,
    };
    const { requestHandler } = sdkOptions(target, LONG_LIVED);
    const url = new URL(aws.url);
    const genuine = {
      protocol: 'http:',
      hostname: url.hostname,
      port: Number(url.port),
      method: 'GET',
      path: '/_stand-in/health',
      query: {},
      headers: { authorization: `AWS4-HMAC-SHA256 Credential=${LONG_LIVED.accessKeyId}/20261121/x` },
    };
    const send = async (change: object) => {
      const request = { ...genuine, ...change } as unknown as Parameters<typeof requestHandler.handle>[0];
      return (await requestHandler.handle(request)).response.statusCode;
    };
    expect(await send({})).toBe(200);
    const other = (authorization: string) => ({ headers: { authorization } });
    for (const change of [
      { hostname: 'localhost' },
      { hostname: '169.254.169.254' },
      { protocol: 'https:' },
      { port: 80 },
      { port: undefined },
      { headers: {} },
      other(`AWS4-HMAC-SHA256 Credential=${SERVICE_KEY.accessKeyId}/20261121/x`),
      other(`AWS4-HMAC-SHA256 Credential=${LONG_LIVED.accessKeyId}X/20261121/x`),
      other('Bearer ABSKambient'),
    ])
      await expect(send(change)).rejects.toThrow('was stopped');
    requestHandler.destroy();
  });
});

describe('the right host', () => {
  test('a region that is not enabled is refused before a host is built from it', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), fc.webUrl(), fc.domain()), async (region) => {
        expect(await codeOf(identity.checkCredential(LONG_LIVED, region))).toBe('region.not_allowed');
      }),
    );
    expect(aws.journal).toEqual([]);
  });
});

function expectNoLeak(error: Error & { detail: string; cause?: unknown }): void {
  const shown = [error.detail, error.stack, String(error.cause), JSON.stringify(error)].join();
  for (const canary of CANARIES)
    for (const spelling of spellings(canary)) expect(shown).not.toContain(spelling);
  expect(shown).not.toContain('stand-in was told');
}
