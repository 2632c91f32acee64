import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { AwsRoleAssumer } from '../../src/credentials/roles-aws.ts';
import type { AwsRoleAssumerOptions } from '../../src/credentials/roles-aws.ts';
import { CALL_POLICIES } from '../../src/credentials/session-policy.ts';
import type { AccessKey } from '../../src/domain/credential.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import { Secret } from '../../src/domain/secret.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { AWS } from '../support/aws-keys.ts';

const ROLE = 'arn:aws:iam::300000000003:role/bedrock';
const ASK = {
  roleArn: ROLE,
  externalId: 'mbk-right',
  region: 'us-west-2',
  sessionName: 'merchant-a',
  tags: { merchant_id: 'merchant-a' },
  policies: CALL_POLICIES,
} as const;
const SERVICE: AccessKey = {
  kind: 'access-key',
  accessKeyId: AWS.service.accessKeyId,
  secretAccessKey: new Secret(AWS.service.secretAccessKey),
};

let aws: StandIn;
beforeEach(async () => {
  aws = await startStandIn();
  aws.addAccessKey(AWS.service);
  aws.addAccessKey(AWS.merchantB);
  aws.addRole({ arn: ROLE, externalId: ASK.externalId, trusts: [AWS.service.arn] });
});
afterEach(async () => {
  await aws.close();
});

function newAssumer(change: Partial<AwsRoleAssumerOptions> = {}): AwsRoleAssumer {
  return new AwsRoleAssumer({
    regions: ['us-east-1', 'us-west-2'],
    homeRegion: 'us-east-1',
    endpoint: aws.url,
    serviceCredentials: SERVICE,
    ...change,
  });
}

async function failure(work: Promise<unknown>): Promise<ServiceError> {
  const error: unknown = await work.catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(ServiceError);
  return error as ServiceError;
}

describe('who signs', () => {
  const AMBIENT = {
    AWS_ACCESS_KEY_ID: AWS.merchantB.accessKeyId,
    AWS_SECRET_ACCESS_KEY: AWS.merchantB.secretAccessKey,
    AWS_SESSION_TOKEN: 'ambient',
    AWS_PROFILE: 'ambient',
    AWS_ROLE_ARN: 'arn:aws:iam::200000000002:role/ambient',
    AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:1',
    AWS_STS_REGIONAL_ENDPOINTS: 'legacy',
    AWS_REGION: 'eu-west-1',
    AWS_USE_FIPS_ENDPOINT: 'true',
  };
  afterEach(() => {
    for (const name of Object.keys(AMBIENT)) Reflect.deleteProperty(process.env, name);
  });

  test('the service, in the region asked for, whatever the environment says', async () => {
    Object.assign(process.env, AMBIENT);
    using assumer = newAssumer();
    const { accessKey } = await assumer.assume(ASK);
    expect(accessKey.accessKeyId).toMatch(/^ASIA/);
    expect(await assumer.ownPrincipal()).toBe(AWS.service.arn);
    expect(await assumer.ownPrincipal()).toBe(AWS.service.arn);
    expect(
      aws.journal.map(({ operation, accessKeyId, region, verified }) => ({
        operation,
        accessKeyId,
        region,
        verified,
      })),
    ).toEqual([
      { operation: 'AssumeRole', accessKeyId: SERVICE.accessKeyId, region: 'us-west-2', verified: true },
      {
        operation: 'GetCallerIdentity',
        accessKeyId: SERVICE.accessKeyId,
        region: 'us-east-1',
        verified: true,
      },
    ]);
  });

  test('the host is that of the region, and of nothing that a caller says', async () => {
    using assumer = newAssumer({ endpoint: undefined as never, requestTimeoutMs: 1 });
    for (const region of ['us-east-9', 'evil.example.com#', '../..'])
      expect((await failure(assumer.assume({ ...ASK, region }))).code).toBe('region.not_allowed');
    expect(aws.journal).toEqual([]);
  });

  test('a principal that is set is not asked for', async () => {
    using assumer = newAssumer({ principalArn: 'arn:aws:iam::900000000001:role/path/service' });
    expect(await assumer.ownPrincipal()).toBe('arn:aws:iam::900000000001:role/path/service');
    expect(aws.journal).toEqual([]);
  });

  test('a question about oneself that failed is asked again', async () => {
    using assumer = newAssumer();
    aws.fault({ operation: 'GetCallerIdentity', times: 2, status: 503, type: 'ServiceUnavailable' });
    expect((await failure(assumer.ownPrincipal())).code).toBe('upstream.unreachable');
    expect(await assumer.ownPrincipal()).toBe(AWS.service.arn);
  });
});

describe('how long a session lasts', () => {
  const HOUR = 3_600_000;

  /** An STS whose clock is `skewMs` from ours. */
  async function lifetimeFrom(skewMs: number, lastsMs: number, date = true): Promise<number> {
    const server = createServer((_request, response) => {
      const at = Date.now() + skewMs;
      // A Date is in whole seconds.
      const whole = Math.floor(at / 1_000) * 1_000;
      response.sendDate = false;
      response.setHeader('content-type', 'text/xml');
      if (date) response.setHeader('date', new Date(whole).toUTCString());
      response.end(`<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
        <AccessKeyId>ASIASKEWED0000000000</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
        <Expiration>${new Date(whole + lastsMs).toISOString()}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`);
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    using assumer = newAssumer({
      endpoint: `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`,
    });
    try {
      return (await assumer.assume(ASK)).lifetimeMs;
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  test.each([0, 4 * 60_000, -4 * 60_000, 26 * HOUR, -26 * HOUR])(
    'by AWS’s clock, %i ms from ours',
    async (skewMs) => {
      expect(await lifetimeFrom(skewMs, HOUR)).toBe(HOUR);
      expect(await lifetimeFrom(skewMs, HOUR / 4)).toBe(HOUR / 4);
    },
  );

  test('never longer than what was asked for, and never below nothing', async () => {
    expect(await lifetimeFrom(0, 12 * HOUR)).toBe(HOUR);
    expect(await lifetimeFrom(0, -HOUR)).toBe(0);
    expect(await lifetimeFrom(0, HOUR, false)).toBe(HOUR);
  });
});

test('refused to say who it is: nothing about a role, and nothing to mend for a merchant', async () => {
  using assumer = newAssumer();
  aws.fault({ operation: 'GetCallerIdentity', times: 1, status: 403, type: 'AccessDenied' });
  const error = await failure(assumer.ownPrincipal());
  expect([error.code, error.options.extra]).toEqual(['upstream.unreachable', undefined]);
  expect(error.detail).toContain('own AWS identity');
});

test('what AWS takes for no role at all is the request’s fault, and not tried for ever', async () => {
  using assumer = newAssumer();
  aws.fault({ operation: 'AssumeRole', times: 1, status: 400, type: 'ValidationError' });
  expect((await failure(assumer.assume(ASK))).code).toBe('request.invalid');
});

test('what AWS says is in no error', async () => {
  using assumer = newAssumer();
  const error = await failure(assumer.assume({ ...ASK, externalId: 'mbk-wrong' }));
  expect(error).toMatchObject({
    code: 'credential.refused_by_aws',
    options: { extra: { refusal: 'role-denied' } },
  });
  expect(JSON.stringify([error.detail, String(error.cause), error.options])).not.toMatch(
    /mbk-wrong|not authorized/,
  );
});

test('without a policy that fits, nothing is asked for', async () => {
  using assumer = newAssumer();
  await expect(assumer.assume({ ...ASK, policies: ['x'.repeat(2_049)] })).rejects.toThrow(ServiceError);
  expect(aws.journal).toEqual([]);
});
