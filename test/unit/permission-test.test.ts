import { describe, expect, test } from '@jest/globals';
import { BedrockProbes } from '../../src/bedrock/probes-aws.ts';
import type { ResolvedCredential } from '../../src/domain/credential.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { AtMost } from '../../src/gateway/at-most.ts';
import type { PermissionAsk } from '../../src/gateway/permission-ask.ts';
import { PermissionCell } from '../../src/gateway/permission-cell.ts';
import { PermissionTest } from '../../src/gateway/permission-test.ts';
import type { PermissionTestParts } from '../../src/gateway/permission-test.ts';
import { RuntimeProbes } from '../../src/gateway/runtime-probes.ts';
import type { RuntimeCall } from '../../src/bedrock/runtime.ts';
import type { EndedBy, Right } from '../../src/ledger/rights-store.ts';
import { startSilentServer } from '../support/silent-server.ts';

const resolved: ResolvedCredential = {
  source: 'stored',
  region: 'us-east-1',
  accountId: '111122223333',
  credential: { kind: 'access-key', accessKeyId: 'AKIAX', secretAccessKey: new Secret('s') },
  poolKey: 'x',
};

function ask(merchantId: string): PermissionAsk {
  const id = merchantId as MerchantId;
  return {
    actor: { subject: 'api-key:x', requestId: 'r' },
    principal: { kind: 'merchant', merchantId: id, subject: 'api-key:x', scopes: ['invoke'] },
    merchant: {
      id,
      name: 'x',
      status: 'active',
      plan: 'open@1',
      directAllowed: false,
      serviceDefaultsAllowed: false,
      regions: [],
      revision: 1,
    },
    choice: { kind: 'merchant-default' },
    callerGone: new AbortController().signal,
    models: ['amazon.nova-micro-v1:0', 'us.amazon.nova-micro-v1:0'],
    regions: [],
    uses: ['invoke'],
    probes: ['invalid-body', 'paid'],
  };
}

/** A test against an AWS that takes connections and never answers. */
async function testOfSilence(totalMs: number, parts: Partial<PermissionTestParts> = {}) {
  const silent = await startSilentServer();
  const limits = { socketsMax: 8, connectMs: 3_000, firstByteMs: 3_000, totalMs: 3_000 };
  const probes = new BedrockProbes({ ...limits, endpoint: silent.url });
  const called: string[] = [];
  const never = () => {
    called.push('a model');
    return Promise.reject(new ServiceError('internal', 'no model may be called'));
  };
  const runtime = new RuntimeProbes({ runtime: { send: never }, gateway: { call: never } });
  const tests = new PermissionTest({
    resolver: { resolve: () => Promise.resolve(resolved) },
    identity: { checkCredential: () => Promise.resolve({ accountId: '111122223333', arn: 'arn:x' }) },
    probes,
    cell: new PermissionCell({ probes, models: { getModel: never }, runtime }),
    audit: { append: () => Promise.resolve() },
    rights: { ended: () => Promise.resolve(new Map()) },
    totalMs,
    ...parts,
  });
  return {
    tests,
    called,
    [Symbol.asyncDispose]: async () => {
      await probes[Symbol.asyncDispose]();
      await silent[Symbol.asyncDispose]();
    },
  };
}

test('when the time is up every cell says that it was, and nothing more is asked', async () => {
  await using silence = await testOfSilence(100);
  const { cells, timedOut, checks } = await silence.tests.run(ask('slow'));
  expect(timedOut).toBe(true);
  expect(cells.map(({ verdict, certainty }) => [verdict, certainty])).toEqual([
    ['unknown', 'none'],
    ['unknown', 'none'],
  ]);
  for (const { why } of cells) expect(why).toContain('time');
  expect(checks.map(({ outcome }) => outcome)).toEqual(['ok', 'failed', 'failed']);
  expect(silence.called).toEqual([]);
});

test('neither STS nor another region keeps a test waiting beyond its time', async () => {
  const late = async <T>(answer: T) => {
    await new Promise((settle) => setTimeout(settle, 2_000));
    return answer;
  };
  const resolve = ({ requestedRegion }: { requestedRegion?: string }) =>
    requestedRegion === undefined
      ? Promise.resolve(resolved)
      : late({ ...resolved, region: requestedRegion, accountId: 'late' });
  const checkCredential = () => late({ accountId: '111122223333', arn: 'arn:x' });
  await using deaf = await testOfSilence(100, { identity: { checkCredential } });
  const { timedOut, checks } = await deaf.tests.run(ask('deaf'));
  expect([timedOut, checks[0]]).toMatchObject([true, { probe: 'GetCallerIdentity', outcome: 'failed' }]);
  await using far = await testOfSilence(100, { resolver: { resolve } });
  const { cells, checks: asked } = await far.tests.run({
    ...ask('far'),
    regions: ['us-east-1', 'eu-west-1'],
  });
  // Its lists were never asked for.
  expect(asked.map(({ region }) => region)).not.toContain('eu-west-1');
  expect(cells.map(({ region, verdict }) => [region, verdict])).toEqual([
    ['us-east-1', 'unknown'],
    ['us-east-1', 'unknown'],
    ['eu-west-1', 'unknown'],
    ['eu-west-1', 'unknown'],
  ]);
});

test('what cannot be recorded opens no credential', async () => {
  const opened: string[] = [];
  const resolve = () => {
    opened.push('a credential');
    return Promise.resolve(resolved);
  };
  const append = () => Promise.reject(new ServiceError('ledger.unavailable', 'no ledger'));
  await using silence = await testOfSilence(100, { audit: { append }, resolver: { resolve } });
  await expect(silence.tests.run(ask('dark'))).rejects.toMatchObject({ code: 'ledger.unavailable' });
  expect(opened).toEqual([]);
});

describe('before each question the right to ask is asked for', () => {
  const HAIKU = 'anthropic.claude-3-haiku-20240307-v1:0';
  const unanswered = () => new ServiceError('upstream.unreachable', 'no answer');

  /** @param ended the database's answer to the question with this number, from 0. */
  async function asks(
    ended: (question: number) => Promise<Map<number, EndedBy<Right>>>,
    regions: readonly string[] = [],
  ) {
    const asked: string[] = [];
    const says =
      <T>(what: string, answer: () => T | Promise<T>) =>
      () => {
        asked.push(what);
        return Promise.resolve(answer());
      };
    const lost = () => Promise.reject(unanswered());
    const probes = {
      listModels: says('models', () => ({ answer: [{ modelId: HAIKU, inferenceTypes: ['ON_DEMAND'] }] })),
      listProfiles: says('profiles', () => ({ answer: [] })),
      availability: says('availability', () => ({ failure: { kind: 'failed', why: 'x' } })),
    } as unknown as BedrockProbes;
    const send = ({ operation }: RuntimeCall) => says<never>(operation, lost)();
    const runtime = new RuntimeProbes({ runtime: { send }, gateway: { call: says<never>('paid', lost) } });
    let questions = 0;
    const tests = new PermissionTest({
      resolver: {
        resolve: async ({ requestedRegion: region = resolved.region, mayAsk }) => {
          if (region !== resolved.region) await mayAsk?.(resolved);
          return { ...resolved, region };
        },
      },
      identity: { checkCredential: says('identity', () => ({ accountId: '111122223333', arn: 'arn:x' })) },
      probes,
      cell: new PermissionCell({ probes, models: { getModel: lost }, runtime }),
      audit: { append: () => Promise.resolve() },
      rights: { ended: () => ended(questions++) },
      totalMs: 10_000,
    });
    const outcome = await tests.run({ ...ask('m'), models: [HAIKU], regions }).then(
      () => 'a report',
      (error: unknown) => (error as ServiceError).code,
    );
    return [outcome, ...asked];
  }

  const HELD = new Map<number, EndedBy<Right>>();
  const STEPS = ['identity', 'models', 'profiles', 'availability', 'count-tokens', 'invoke', 'paid'];

  test.each([
    [0, 0],
    [1, 1],
    [2, 3],
    [4, 4],
    [5, 5],
    [6, 6],
  ])('refused at question %i, nothing but %i steps were asked', async (at, steps) => {
    const refused = new Map([[0, 'merchant']] as const);
    const found = await asks((question) => Promise.resolve(question < at ? HELD : refused));
    expect(found).toEqual(['merchant.not_active', ...STEPS.slice(0, steps)]);
  });

  test('who cannot be asked is no leave', async () => {
    const away = () => Promise.reject(new ServiceError('ledger.unavailable', 'x'));
    const found = await asks((question) => (question < 6 ? Promise.resolve(HELD) : away()));
    expect(found).toEqual(['ledger.unavailable', ...STEPS.slice(0, 6)]);
  });

  test.each([1, 2])('refused at question %i of two regions, whichever asked it', async (at) => {
    const refused = new Map([[0, 'credential']] as const);
    const found = await asks(
      (question) => Promise.resolve(question === at ? refused : HELD),
      ['us-east-1', 'eu-west-1'],
    );
    expect(found[0]).toBe('credential.not_usable');
    expect(found).not.toContain('invoke');
  });

  test('a right that holds ends nothing', async () => {
    expect(await asks(() => Promise.resolve(HELD))).toEqual(['a report', ...STEPS]);
  });
});

test('a merchant has two tests running at most, and others are not in its way', async () => {
  await using silence = await testOfSilence(1_000);
  const two = [silence.tests.run(ask('busy')), silence.tests.run(ask('busy'))];
  await expect(silence.tests.run(ask('busy'))).rejects.toMatchObject({ code: 'limit.rate_exceeded' });
  const third = silence.tests.run(ask('idle'));
  await Promise.all([...two, third]);
  await expect(silence.tests.run(ask('busy'))).resolves.toMatchObject({ timedOut: true });
});

test('at most so many at a time, and all of them in the end, failures included', async () => {
  const gate = new AtMost(3);
  let [running, most, done] = [0, 0, 0];
  const work = async (at: number) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running -= 1;
    done += 1;
    if (at % 4 === 0) throw new Error('fails');
  };
  const all = await Promise.allSettled(Array.from({ length: 20 }, (_, at) => gate.run(() => work(at))));
  expect([most, done]).toEqual([3, 20]);
  expect(all.filter(({ status }) => status === 'rejected')).toHaveLength(5);
});
