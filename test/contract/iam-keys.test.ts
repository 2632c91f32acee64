import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { AwsIamKeys } from '../../src/credentials/iam-keys-aws.ts';
import { AwsIdentityCheck } from '../../src/credentials/identity-aws.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { StandIn } from '../aws/stand-in.ts';
import {
  A_ACCOUNT,
  CANARIES,
  LONG_LIVED,
  TEMPORARY,
  codeOf,
  failure,
  known,
  spellings,
  startAws,
  withEnvironment,
} from './vault-setup.ts';

const ARN = `arn:aws:iam::${A_ACCOUNT}:user/team/bedrock`;
const OWNER = { accessKey: LONG_LIVED, principalArn: ARN };
const DAY_MS = 86_400_000;

let aws: StandIn;
let iam: AwsIamKeys;
let identity: AwsIdentityCheck;

beforeAll(async () => {
  aws = await startAws();
  const clock = { now: () => Date.now() };
  iam = new AwsIamKeys({ clock, endpoint: aws.url, requestTimeoutMs: 1_500 });
  identity = new AwsIdentityCheck({ regions: ['us-east-1'], endpoints: { sts: aws.url } });
});
afterAll(() => aws.close());
beforeEach(async () => {
  aws.forget();
  aws.setNewKeyDelay(0);
  aws.addAccessKey(mine({ createdAtMs: Date.now() - 100 * DAY_MS }));
  for (const { accessKeyId } of await iam.list(OWNER))
    if (accessKeyId !== LONG_LIVED.accessKeyId) await iam.remove(OWNER, accessKeyId);
  aws.forget();
});

function mine(change: object = {}) {
  return { ...known(LONG_LIVED, A_ACCOUNT), arn: ARN, ...change };
}

describe('the keys of the user who signs', () => {
  test('one is made, used, deactivated and deleted; each call by the given key, at the one IAM', async () => {
    const made = await iam.create(OWNER);
    expect(made.accessKeyId).toMatch(/^AKIA[A-Z0-9]{16}$/);
    expect(JSON.stringify(made)).not.toContain(made.secretAccessKey.reveal());
    const found = await identity.checkCredential(made, 'us-east-1');
    expect(found).toEqual({ accountId: A_ACCOUNT, arn: ARN });
    const listed = await iam.list({ accessKey: made });
    expect(listed.map(({ accessKeyId, state }) => [accessKeyId, state])).toEqual([
      [LONG_LIVED.accessKeyId, 'active'],
      [made.accessKeyId, 'active'],
    ]);
    expect(listed[0]?.createdAt.getTime()).toBeLessThan(Date.now() - 99 * DAY_MS);

    // The successor removes the one before: a key need not outlive itself.
    expect(await iam.deactivate({ accessKey: made }, LONG_LIVED.accessKeyId)).toBe('done');
    const refused = await failure(identity.checkCredential(LONG_LIVED, 'us-east-1'));
    expect(refused).toMatchObject({ options: { extra: { refusal: 'unknown-key' } } });
    expect((await failure(iam.list(OWNER))).code).toBe('credential.refused_by_aws');
    expect((await iam.list({ accessKey: made }))[0]?.state).toBe('inactive');
    expect(await iam.remove({ accessKey: made }, LONG_LIVED.accessKeyId)).toBe('done');
    expect(await iam.remove({ accessKey: made }, LONG_LIVED.accessKeyId)).toBe('gone');
    expect(await iam.deactivate({ accessKey: made }, LONG_LIVED.accessKeyId)).toBe('gone');
    expect(await iam.list({ accessKey: made })).toHaveLength(1);

    const calls = aws.journal.filter(({ service }) => service === 'iam');
    expect(calls.filter(({ verified }) => verified).every(({ region }) => region === 'us-east-1')).toBe(true);
    expect(calls[0]).toMatchObject({ operation: 'CreateAccessKey', accessKeyId: LONG_LIVED.accessKeyId });
    const form = Buffer.from(calls[0]?.bodyBase64 ?? '', 'base64').toString();
    expect(form).not.toContain('UserName');
  });

  test('a new key is not known at once', async () => {
    aws.setNewKeyDelay(3_600_000);
    const made = await iam.create(OWNER);
    const error = await failure(identity.checkCredential(made, 'us-east-1'));
    expect(error).toMatchObject({ options: { extra: { refusal: 'unknown-key' } } });
  });

  test("ambient variables change neither signer nor host, and another user's keys are out of reach", async () => {
    aws.addAccessKey({ ...known(LONG_LIVED, A_ACCOUNT), accessKeyId: 'AKIAOTHERUSER0000000' });
    const ambient = {
      AWS_ENDPOINT_URL_IAM: 'http://127.0.0.1:9',
      AWS_ACCESS_KEY_ID: 'AKIAOTHERUSER0000000',
      AWS_REGION: 'eu-west-1',
    };
    await withEnvironment(ambient, async () => {
      expect(await iam.list(OWNER)).toHaveLength(1);
      expect(await iam.remove(OWNER, 'AKIAOTHERUSER0000000')).toBe('gone');
    });
    const broken = { accessKey: { ...LONG_LIVED, secretAccessKey: new Secret('') } };
    await expect(iam.list(broken)).rejects.toThrow(TypeError);
    expect(aws.journal.every(({ accessKeyId }) => accessKeyId === LONG_LIVED.accessKeyId)).toBe(true);
  });
});

describe('what keeps a key from being made is said', () => {
  test.each([
    ['iam:CreateAccessKey', () => iam.create(OWNER)],
    ['iam:ListAccessKeys', () => iam.list(OWNER)],
    ['iam:UpdateAccessKey', () => iam.deactivate(OWNER, LONG_LIVED.accessKeyId)],
    ['iam:DeleteAccessKey', () => iam.remove(OWNER, LONG_LIVED.accessKeyId)],
  ])('%s is not permitted: the action, the resource and the statement', async (action, work) => {
    aws.addAccessKey(mine({ deny: [action] }));
    const error = await failure(work());
    expect(error).toMatchObject({ code: 'credential.refused_by_aws' });
    expect(error.options.extra).toMatchObject({ refusal: 'not-permitted', action, resource: ARN });
    const statement: unknown = JSON.parse(error.options.extra?.['statement'] as string);
    expect(statement).toMatchObject({ Effect: 'Allow', Resource: ARN });
    expect((statement as { Action: string[] }).Action).toContain(action);
    expect(error.detail).toContain(action);
    expectNoLeak(error);
  });

  test('without the ARN, the resource is the user of the policy variable', async () => {
    aws.addAccessKey(mine({ deny: ['iam:*'] }));
    const error = await failure(iam.create({ accessKey: LONG_LIVED }));
    expect(error.options.extra?.['resource']).toBe('arn:aws:iam::*:user/${aws:username}');
  });

  test('two keys are all there can be: which, by hint and age; nothing is tried twice', async () => {
    const second = await iam.create(OWNER);
    aws.forget();
    const error = await failure(iam.create(OWNER));
    expect(error).toMatchObject({ code: 'credential.refused_by_aws' });
    expect(error.options.extra?.['refusal']).toBe('key-limit');
    const hint = `AKIA…${second.accessKeyId.slice(-4)}`;
    expect(error.detail).toContain(`AKIA…0000 (active, 100 days old) and ${hint} (active, 0 days old)`);
    expect(error.detail).not.toContain(second.accessKeyId);
    expect(aws.journal.map(({ operation }) => operation)).toEqual(['CreateAccessKey', 'ListAccessKeys']);
    aws.fault({ operation: 'ListAccessKeys', status: 403, type: 'AccessDenied' });
    expect((await failure(iam.create(OWNER))).detail).toContain('as many access keys as AWS allows. Delete');
    expectNoLeak(error);
  });

  test('temporary keys belong to no user: not even asked', async () => {
    expect(await codeOf(iam.create({ accessKey: TEMPORARY }))).toBe('credential.not_usable');
    expect(aws.journal).toEqual([]);
  });

  test('a wrong secret', async () => {
    const accessKey = { ...LONG_LIVED, secretAccessKey: new Secret('x'.repeat(40)) };
    const error = await failure(iam.list({ accessKey }));
    expect(error.options.extra?.['refusal']).toBe('bad-signature');
  });
});

describe('when IAM gives no answer', () => {
  test('throttling: tried again, but creating only once', async () => {
    aws.fault({ service: 'iam', status: 400, type: 'Throttling', times: 'always' });
    expect(await codeOf(iam.create(OWNER))).toBe('upstream.throttled');
    expect(aws.journal).toHaveLength(1);
    expect(await codeOf(iam.list(OWNER))).toBe('upstream.throttled');
    expect(aws.journal).toHaveLength(3);
  });

  test.each([
    ['5xx', { status: 503, type: 'ServiceUnavailable' }],
    ['a reset', { reset: true }],
    ['silence', { hangHeaders: true }],
  ] as const)('%s: a key may have been made, and this is said; nothing else is', async (_name, fault) => {
    aws.fault({ ...fault, service: 'iam', times: 'always' });
    const error = await failure(iam.create(OWNER));
    expect(error).toMatchObject({ code: 'upstream.unreachable', options: { retryAfterSeconds: 5 } });
    expect(error.options.extra).toEqual({ mayHaveHappened: true });
    expect(error.detail).toContain('look for a new key in IAM');
    expect(aws.journal).toHaveLength(1);
    const other = await failure(iam.list(OWNER));
    expect(other.options.extra).toBeUndefined();
    expectNoLeak(error);
  });

  test('one failed attempt at listing is made good by the second', async () => {
    aws.fault({ service: 'iam', status: 500, type: 'InternalFailure', times: 1 });
    expect(await iam.list(OWNER)).toHaveLength(1);
  });
});

function expectNoLeak(error: Error & { detail: string; cause?: unknown }): void {
  const shown = [error.detail, error.stack, String(error.cause), JSON.stringify(error)].join();
  for (const canary of CANARIES)
    for (const spelling of spellings(canary)) expect(shown).not.toContain(spelling);
  expect(shown).not.toContain('stand-in was told');
}
