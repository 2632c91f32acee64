import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { AssumeRoleAsk } from '../../src/credentials/role-assumer.ts';
import { RoleSessions } from '../../src/credentials/role-sessions.ts';
import {
  accountOfRole,
  newExternalId,
  principalOf,
  sessionNameOf,
  sessionTagsOf,
} from '../../src/credentials/role.ts';
import {
  CALL_POLICIES,
  logPolicies,
  NO_POLICIES,
  SESSION_POLICY_MAX,
} from '../../src/credentials/session-policy.ts';
import type { AccessKey, AssumableRole } from '../../src/domain/credential.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { invocationLogsSchema } from '../../src/domain/invocation-logs.ts';
import { Secret } from '../../src/domain/secret.ts';

const PLACE = {
  merchantId: 'merchant-a' as MerchantId,
  credentialId: `cred_${'A'.repeat(22)}` as CredentialId,
  version: 1,
};
const ROLE: AssumableRole = {
  kind: 'assume-role',
  roleArn: 'arn:aws:iam::111122223333:role/x',
  externalId: newExternalId(),
};

function setUp(lifetimeMs = 3_600_000) {
  const clock = { ms: 0, now: (): number => clock.ms };
  const asked: AssumeRoleAsk[] = [];
  const failures: Error[] = [];
  const stopped: ServiceError[] = [];
  const sessions = new RoleSessions({
    store: { recordAsking: () => (stopped[0] ? Promise.reject(stopped[0]) : Promise.resolve()) },
    clock,
    max: 100,
    random: () => 0.5,
    assumer: {
      assume: (ask) => {
        asked.push(ask);
        const failure = failures.shift();
        if (failure) return Promise.reject(failure);
        const accessKeyId = `ASIA${String(asked.length).padStart(16, '0')}`;
        const secret = new Secret('s'.repeat(40));
        const accessKey: AccessKey = {
          kind: 'access-key',
          accessKeyId,
          secretAccessKey: secret,
          sessionToken: secret,
        };
        return Promise.resolve({ accessKey, lifetimeMs });
      },
    },
  });
  return { clock, asked, failures, stopped, sessions };
}

test('keys that sign themselves are their own signer, and their client keeps its name', async () => {
  const { sessions, asked } = setUp();
  const key: AccessKey = { kind: 'access-key', accessKeyId: 'AKIA', secretAccessKey: new Secret('s') };
  expect(await sessions.signerOf(PLACE, key, 'us-east-1')).toEqual({
    credential: key,
    poolKey: `${PLACE.credentialId}:1`,
  });
  expect(asked).toEqual([]);
});

test('an hour of calls: no call waits or fails, none is signed by a session in its last minute, each session has a client of its own', async () => {
  const { sessions, clock, asked } = setUp();
  const seen = new Map<string, { poolKey: string; first: number; last: number }>();
  for (; clock.ms < 3 * 3_600_000; clock.ms += 20_000) {
    const { credential, poolKey } = await sessions.signerOf(PLACE, ROLE, 'us-east-1');
    const { accessKeyId } = credential as AccessKey;
    const known = seen.get(accessKeyId) ?? { poolKey, first: clock.ms, last: 0 };
    expect(poolKey).toBe(known.poolKey);
    seen.set(accessKeyId, { ...known, last: clock.ms });
    expect(clock.ms - known.first).toBeLessThan(3_600_000 - 60_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(new Set([...seen.values()].map(({ poolKey }) => poolKey)).size).toBe(seen.size);
  expect(asked.length).toBeLessThanOrEqual(5);
  expect(seen.size).toBe(asked.length);
});

test.each<[string, Parameters<RoleSessions['signerOf']>]>([
  ['merchant', [{ ...PLACE, merchantId: 'merchant-b' as MerchantId }, ROLE, 'us-east-1']],
  ['credential', [{ ...PLACE, credentialId: `cred_${'B'.repeat(22)}` as CredentialId }, ROLE, 'us-east-1']],
  ['version', [{ ...PLACE, version: 2 }, ROLE, 'us-east-1']],
  ['role', [PLACE, { ...ROLE, roleArn: 'arn:aws:iam::111122223333:role/y' }, 'us-east-1']],
  ['ExternalId', [PLACE, { ...ROLE, externalId: newExternalId() }, 'us-east-1']],
  ['region', [PLACE, ROLE, 'us-west-2']],
  ['policy', [PLACE, ROLE, 'us-east-1', NO_POLICIES]],
])('another %s is another session', async (_name, other) => {
  const { sessions, asked } = setUp();
  const mine = await sessions.signerOf(PLACE, ROLE, 'us-east-1');
  const theirs = await sessions.signerOf(...other);
  expect(asked).toHaveLength(2);
  expect(theirs.credential).not.toEqual(mine.credential);
  expect(theirs.poolKey).not.toBe(mine.poolKey);
  expect(await sessions.signerOf(PLACE, ROLE, 'us-east-1')).toEqual(mine);
});

describe('a session that AWS refuses', () => {
  async function refusedAfter(ageMs: number) {
    const house = setUp();
    const get = () => house.sessions.signerOf(PLACE, ROLE, 'us-east-1');
    const { credential: old } = await get();
    house.clock.ms += ageMs;
    return { ...house, get, old };
  }

  test('is given up once, and never the one that came in its place', async () => {
    const { sessions, clock, asked, get, old } = await refusedAfter(60_000);
    expect(sessions.refused(old)).toBe(true);
    const fresh = await get();
    expect(fresh.credential).not.toBe(old);
    clock.ms += 120_000;
    for (let times = 0; times < 100; times += 1) expect(sessions.refused(old)).toBe(true);
    expect(await get()).toEqual(fresh);
    expect(asked).toHaveLength(2);
  });

  test('stays while it is young: another would be refused as well', async () => {
    const { sessions, asked, get, old } = await refusedAfter(59_999);
    expect(sessions.refused(old)).toBe(false);
    expect((await get()).credential).toBe(old);
    expect(asked).toHaveLength(1);
  });

  test('while it is renewed: the one that comes is the other', async () => {
    const { sessions, asked, get, old } = await refusedAfter(3_600_000 * 0.8);
    void get();
    expect(sessions.refused(old)).toBe(true);
    expect((await get()).credential).not.toBe(old);
    expect(asked).toHaveLength(2);
  });

  test('what is no session of a role is left alone', async () => {
    const { sessions } = await refusedAfter(60_000);
    const key: AccessKey = { kind: 'access-key', accessKeyId: 'AKIA', secretAccessKey: new Secret('s') };
    await sessions.signerOf(PLACE, key, 'us-east-1');
    const { credential: another } = await sessions.newSignerOf(PLACE, ROLE, 'us-east-1');
    for (const one of [key, another]) {
      expect(sessions.refused(one)).toBe(false);
      sessions.doubt(one);
    }
  });

  test('one that is doubted serves on while it is renewed, and is doubted once', async () => {
    const { sessions, clock, failures, asked, get, old } = await refusedAfter(59_999);
    const settled = () => new Promise((resolve) => setImmediate(resolve));
    sessions.doubt(old);
    await get();
    expect(asked).toHaveLength(1);
    clock.ms += 1;
    failures.push(new ServiceError('upstream.unreachable', 'down'));
    for (let times = 0; times < 3; times += 1) {
      sessions.doubt(old);
      expect((await get()).credential).toBe(old);
      await settled();
    }
    expect(asked).toHaveLength(2);
    clock.ms += 15_000;
    await get();
    await settled();
    expect((await get()).credential).not.toBe(old);
    expect(asked).toHaveLength(3);
    clock.ms += 60_000;
    sessions.doubt(old);
    await get();
    expect(asked).toHaveLength(3);
  });
});

test('a merchant that takes its trust back is obeyed at the next refresh; an outage of STS is not felt', async () => {
  const { sessions, clock, failures, asked } = setUp();
  const get = () => sessions.signerOf(PLACE, ROLE, 'us-east-1');
  const first = await get();
  clock.ms += 3_600_000 * 0.8;
  failures.push(new ServiceError('upstream.unreachable', 'down'));
  expect(await get()).toEqual(first);
  await new Promise((resolve) => setImmediate(resolve));
  expect(await get()).toEqual(first);
  clock.ms += 20_000;
  failures.push(
    new ServiceError('credential.refused_by_aws', 'no'),
    new ServiceError('credential.refused_by_aws', 'no'),
  );
  expect(await get()).toEqual(first);
  await new Promise((resolve) => setImmediate(resolve));
  await expect(get()).rejects.toThrow('no');
  expect(await get()).not.toEqual(first);
  expect(asked).toHaveLength(5);
});

test('of what was stopped elsewhere no session is renewed, and the one there was is forgotten', async () => {
  const { sessions, clock, asked, stopped } = setUp();
  const get = () => sessions.signerOf(PLACE, ROLE, 'us-east-1');
  await get();
  stopped.push(new ServiceError('credential.not_usable', 'frozen'));
  clock.ms += 3_000_000;
  await get();
  await new Promise((resolve) => setImmediate(resolve));
  await expect(get()).rejects.toThrow('frozen');
  expect(asked).toHaveLength(1);
  stopped.pop();
  await get();
  expect(asked).toHaveLength(2);
});

test('evicting a credential or a merchant forgets its sessions, and no others', async () => {
  const { sessions, asked } = setUp();
  const second = { ...PLACE, credentialId: `cred_${'B'.repeat(22)}` as CredentialId };
  const other = { ...PLACE, merchantId: 'merchant-a2' as MerchantId };
  const all = async () => {
    for (const place of [PLACE, second, other]) await sessions.signerOf(place, ROLE, 'us-east-1');
    return asked.length;
  };
  expect(await all()).toBe(3);
  sessions.evict(PLACE.merchantId, PLACE.credentialId);
  expect(await all()).toBe(4);
  sessions.evict(PLACE.merchantId);
  expect(await all()).toBe(6);
});

test('property: names and tags are in the grammar of STS, and of different merchants they differ', () => {
  const merchantId = fc.stringMatching(/^[a-z0-9][a-z0-9-]{1,62}$/) as fc.Arbitrary<MerchantId>;
  fc.assert(
    fc.property(merchantId, merchantId, fc.string({ unit: 'binary' }), (a, b, anything) => {
      for (const text of [a, anything as MerchantId]) {
        expect(sessionNameOf(text)).toMatch(/^[\w+=,.@-]{2,64}$/);
        for (const value of Object.values(sessionTagsOf(text, anything as CredentialId)))
          expect(value).toMatch(/^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,256}$/u);
      }
      expect(sessionNameOf(a)).toBe(a);
      expect(sessionNameOf(a) === sessionNameOf(b)).toBe(a === b);
    }),
  );
});

test('property: every session policy is JSON that fits, whatever the merchant’s logs are called', () => {
  const logs = fc.oneof(
    fc.record({ cloudWatch: fc.record({ logGroup: fc.stringMatching(/^[A-Za-z0-9_./#-]{1,512}$/) }) }),
    fc.record({
      s3: fc.record({
        bucket: fc.stringMatching(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/),
        prefix: fc.stringMatching(/^[A-Za-z0-9!_.*'()/-]{1,512}$/),
      }),
    }),
  );
  const fits = (policy: string) => {
    expect(policy.length).toBeLessThanOrEqual(SESSION_POLICY_MAX);
    expect(JSON.parse(policy)).toMatchObject({ Version: '2012-10-17' });
  };
  [...CALL_POLICIES, ...NO_POLICIES].forEach(fits);
  fc.assert(
    fc.property(logs, (given) => {
      const parsed = invocationLogsSchema.safeParse(given);
      if (parsed.success) logPolicies(parsed.data).forEach(fits);
    }),
  );
});

test('the shorter policy allows the same calls, with fewer questions', () => {
  const [full = [], short = []] = CALL_POLICIES.map((policy) => {
    const { Statement } = JSON.parse(policy) as { Statement: { Action: string[] }[] };
    return Statement.flatMap(({ Action }) => Action);
  });
  const allows = (action: string) => (pattern: string) =>
    pattern.endsWith('*') ? action.startsWith(pattern.slice(0, -1)) : action === pattern;
  for (const action of full.filter((one) => !/:(Get|List)/.test(one)))
    expect([action, short.some(allows(action))]).toEqual([action, true]);
  for (const action of short.filter((one) => !one.endsWith('*'))) expect(full).toContain(action);
  for (const action of ['bedrock:ApplyGuardrail', 'bedrock:RenderPrompt']) expect(full).toContain(action);
});

test('asked anew: another session, while those in use go on; a refusal ends them, silence does not', async () => {
  const { sessions, asked, failures } = setUp();
  const inUse = await sessions.signerOf(PLACE, ROLE, 'us-east-1');
  expect(await sessions.newSignerOf(PLACE, ROLE, 'us-east-1')).not.toEqual(inUse);
  expect(await sessions.signerOf(PLACE, ROLE, 'us-east-1')).toEqual(inUse);
  failures.push(new ServiceError('upstream.unreachable', 'down'));
  await expect(sessions.newSignerOf(PLACE, ROLE, 'us-east-1')).rejects.toThrow('down');
  expect(await sessions.signerOf(PLACE, ROLE, 'us-east-1')).toEqual(inUse);
  failures.push(new ServiceError('credential.refused_by_aws', 'no'));
  await expect(sessions.newSignerOf(PLACE, ROLE, 'us-east-1')).rejects.toThrow('no');
  expect(await sessions.signerOf(PLACE, ROLE, 'us-east-1')).not.toEqual(inUse);
  expect(asked).toHaveLength(5);
});

test('ExternalIds are in AWS’s grammar and never the same', () => {
  const many = Array.from({ length: 1_000 }, newExternalId);
  expect(new Set(many).size).toBe(1_000);
  for (const id of many) expect(id).toMatch(/^[\w+=,.@:/-]{2,1224}$/);
});

test('whom a trust policy names', () => {
  expect(principalOf('arn:aws:sts::111122223333:assumed-role/bedrock/i-0123')).toBe(
    'arn:aws:iam::111122223333:role/bedrock',
  );
  expect(principalOf('arn:aws:iam::111122223333:user/bedrock')).toBe(
    'arn:aws:iam::111122223333:user/bedrock',
  );
  expect(accountOfRole('arn:aws:iam::111122223333:role/a/b/c')).toBe('111122223333');
});
