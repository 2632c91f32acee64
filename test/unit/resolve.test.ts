import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CredentialResolver } from '../../src/credentials/resolve.ts';
import type { ResolverParts, ResolveRequest } from '../../src/credentials/resolve.ts';
import { RoleSessions } from '../../src/credentials/role-sessions.ts';
import type { CredentialChoice } from '../../src/domain/credential-choice.ts';
import type { AccessKey, StoredMaterial } from '../../src/domain/credential.ts';
import { ERRORS } from '../../src/domain/error-catalogue.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ErrorCode } from '../../src/domain/error-catalogue.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import type { Merchant } from '../../src/domain/merchant.ts';
import { Secret } from '../../src/domain/secret.ts';

const REGIONS = ['us-east-1', 'us-west-2', 'eu-west-1'];
const STORED = 'cred_0000000000000000000001' as CredentialId;
const DEFAULT = 'cred_0000000000000000000002' as CredentialId;
const KEYS = {
  direct: accessKey('AKIADIRECTAAAAAAAAAA'),
  session: accessKey('AKIASESSIONAAAAAAAAA'),
  service: accessKey('AKIASERVICEAAAAAAAAA'),
  [STORED]: accessKey('AKIASTOREDAAAAAAAAAA'),
  [DEFAULT]: accessKey('AKIADEFAULTAAAAAAAAA'),
};
const ROLE = {
  kind: 'assume-role',
  roleArn: 'arn:aws:iam::300000000003:role/x',
  externalId: 'x',
} as const;
const CHOICES = {
  direct: { kind: 'direct', accessKey: KEYS.direct, region: 'us-east-1' },
  session: { kind: 'session', session: new Secret('a..b.c.d') },
  stored: { kind: 'stored', credentialId: STORED },
  'service-default': { kind: 'service-default' },
  'merchant-default': { kind: 'merchant-default' },
} as const satisfies Record<CredentialChoice['kind'], CredentialChoice>;

describe('each choice is resolved to its own keys', () => {
  test.each([
    ['direct', KEYS.direct, 'direct', '100000000001'],
    ['session', KEYS.session, 'session', '200000000002'],
    ['stored', KEYS[STORED], 'stored', '300000000003'],
    ['service-default', KEYS.service, 'service-default', '400000000004'],
    ['merchant-default', KEYS[DEFAULT], 'stored', '300000000003'],
  ] as const)('%s', async (kind, credential, source, accountId) => {
    const { resolve } = setUp();
    const resolved = await resolve({ choice: CHOICES[kind] });
    expect(resolved.credential).toBe(credential);
    expect(resolved).toMatchObject({ source, accountId, region: 'us-east-1' });
  });

  test('stored ones name credential and version; the others do not', async () => {
    const { resolve } = setUp();
    expect(await resolve({ choice: CHOICES.stored })).toMatchObject({
      credentialId: STORED,
      version: 3,
      poolKey: `${STORED}:3`,
    });
    for (const kind of ['direct', 'session', 'service-default'] as const)
      expect(await resolve({ choice: CHOICES[kind] })).not.toHaveProperty('credentialId');
  });
});

describe('what is only remembered asks AWS nothing', () => {
  const ended = new ServiceError('credential.not_usable', 'frozen');
  const mayAsk = () => Promise.reject(ended);

  test('a stored credential that is not open is opened when the right holds, and not before', async () => {
    const { resolve, touched } = setUp();
    await expect(resolve({ choice: CHOICES.stored, mayAsk })).rejects.toBe(ended);
    expect(touched).toEqual([`current ${STORED}`]);
    const asked: unknown[] = [];
    await resolve({ choice: CHOICES.stored, mayAsk: (right) => Promise.resolve(void asked.push(right)) });
    expect(asked).toEqual([{ source: 'stored', credentialId: STORED }]);
  });

  test('one that is open asks nobody', async () => {
    const { resolve } = setUp({ held: true });
    expect(await resolve({ choice: CHOICES.stored, mayAsk })).toMatchObject({ source: 'stored' });
  });

  test('a role that is open has no session in a new region before the right is asked for', async () => {
    const { resolve, touched } = setUp({ held: true, role: true });
    await expect(resolve({ choice: CHOICES.stored, mayAsk })).rejects.toBe(ended);
    await resolve({ choice: CHOICES.stored, mayAsk: () => Promise.resolve() });
    expect(await resolve({ choice: CHOICES.stored, mayAsk })).toMatchObject({ credential: KEYS.session });
    await expect(resolve({ choice: CHOICES.stored, mayAsk, requestedRegion: 'eu-west-1' })).rejects.toBe(
      ended,
    );
    expect(touched.filter((step) => step.startsWith('assume'))).toEqual(['assume us-east-1']);
  });
});

describe('whatever fails, no other keys are touched', () => {
  const failures = fc.record({
    kind: fc.constantFrom<CredentialChoice['kind']>(...(Object.keys(CHOICES) as CredentialChoice['kind'][])),
    code: fc.constantFrom<ErrorCode>(...(Object.keys(ERRORS) as ErrorCode[])),
    plain: fc.boolean(),
  });
  const TOUCHED: Record<CredentialChoice['kind'], readonly string[]> = {
    direct: ['aws.asked merchant-a direct', 'check AKIADIRECTAAAAAAAAAA'],
    session: ['open session'],
    stored: [`current ${STORED}`, `open ${STORED}`],
    'service-default': ['aws.asked merchant-a service-default', 'check AKIASERVICEAAAAAAAAA'],
    'merchant-default': [`current ${DEFAULT}`, `open ${DEFAULT}`],
  };

  test('property: every failure of every step of every choice comes out as it is', async () => {
    await fc.assert(
      fc.asyncProperty(failures, fc.nat(1), async ({ kind, code, plain }, step) => {
        const failure = plain ? new Error('boom') : new ServiceError(code, 'no');
        const failing = TOUCHED[kind][step % TOUCHED[kind].length] ?? '';
        const { resolve, touched } = setUp({ failures: { [failing]: failure } });
        await expect(resolve({ choice: CHOICES[kind] })).rejects.toBe(failure);
        // Nothing comes after what failed: what cannot be recorded is not asked.
        expect(touched).toEqual(TOUCHED[kind].slice(0, TOUCHED[kind].indexOf(failing) + 1));
      }),
      { numRuns: 500 },
    );
  });

  test('without a default credential nothing is guessed, and the answer lists the choices', async () => {
    const { resolve, touched } = setUp();
    const merchant = merchantA();
    delete merchant.defaultCredentialId;
    const error = await refused(resolve({ choice: CHOICES['merchant-default'], merchant }));
    expect(error.code).toBe('credential.none_chosen');
    for (const way of ['credentialId', 'session', 'awsAccessKeyId', 'useServiceDefaults', 'x-bedrock-'])
      expect(error.detail).toContain(way);
    expect(touched).toEqual([]);
  });

  test('without service keys nothing stands in for them', async () => {
    const { resolve, touched } = setUp({ noService: true });
    const error = await refused(resolve({ choice: CHOICES['service-default'] }));
    expect(error.code).toBe('service_defaults.not_configured');
    expect(touched).toEqual([]);
  });

  test('a caller of one merchant with the merchant of another stops at once', async () => {
    const { resolve, touched } = setUp();
    for (const choice of Object.values(CHOICES)) {
      const error = await refused(
        resolve({ choice, merchant: merchantA({ id: 'merchant-b' as MerchantId }) }),
      );
      expect(error.code).toBe('internal');
    }
    expect(touched).toEqual([]);
  });
});

describe('sources that the operator must allow', () => {
  test.each([
    ['direct', { directAllowed: false }],
    ['session', { directAllowed: false }],
    ['service-default', { serviceDefaultsAllowed: false }],
  ] as const)('%s: refused before anything happens, and says how to change it', async (kind, rule) => {
    const { resolve, touched } = setUp({ noService: true });
    const error = await refused(resolve({ choice: CHOICES[kind], merchant: merchantA(rule) }));
    expect(error.code).toBe('auth.source_not_allowed');
    expect(error.detail).toMatch(/ask the operator/i);
    expect(touched).toEqual([]);
  });
});

describe('regions', () => {
  test.each(['direct', 'session', 'stored', 'service-default', 'merchant-default'] as const)(
    '%s: one that the merchant does not have is refused and those it has are named',
    async (kind) => {
      const { resolve, touched } = setUp();
      const merchant = merchantA({ regions: ['eu-west-1', 'ap-south-1'] });
      const error = await refused(resolve({ choice: CHOICES[kind], merchant }));
      expect(error.code).toBe('region.not_allowed');
      expect(error.detail).toContain('Use one of: eu-west-1.');
      expect(touched.filter((step) => step.startsWith('check') || step.startsWith('open cred'))).toEqual([]);
    },
  );

  test('one that the service has not enabled is refused, for any merchant and any text', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string(), fc.constantFrom('direct', 'stored'), async (region, kind) => {
        fc.pre(!REGIONS.includes(region));
        const { resolve } = setUp();
        const request =
          kind === 'direct'
            ? { choice: { ...CHOICES.direct, region } }
            : { choice: CHOICES.stored, requestedRegion: region };
        expect((await refused(resolve(request))).code).toBe('region.not_allowed');
      }),
    );
  });

  test('stored credentials and service defaults may be used in another region that is allowed', async () => {
    const { resolve } = setUp();
    for (const kind of ['stored', 'merchant-default', 'service-default'] as const) {
      const resolved = await resolve({ choice: CHOICES[kind], requestedRegion: 'us-west-2' });
      expect(resolved.region).toBe('us-west-2');
    }
  });

  test('direct credentials and sessions keep the region they came with', async () => {
    const { resolve } = setUp();
    for (const kind of ['direct', 'session'] as const) {
      const other = await refused(resolve({ choice: CHOICES[kind], requestedRegion: 'us-west-2' }));
      expect(other.code).toBe('region.not_allowed');
      const same = await resolve({ choice: CHOICES[kind], requestedRegion: 'us-east-1' });
      expect(same.region).toBe('us-east-1');
    }
  });
});

describe('what AWS said of direct keys', () => {
  test('is asked once for many at once, and believed for a minute', async () => {
    const { resolve, touched, clock } = setUp();
    await Promise.all(Array.from({ length: 20 }, () => resolve({ choice: CHOICES.direct })));
    clock.ms += 59_999;
    await resolve({ choice: CHOICES.direct });
    expect(touched.filter(isCheck)).toHaveLength(1);
    clock.ms += 1;
    await resolve({ choice: CHOICES.direct });
    expect(touched.filter(isCheck)).toHaveLength(2);
  });

  test('is asked again when AWS refused', async () => {
    const failures: Record<string, Error> = { 'check AKIADIRECTAAAAAAAAAA': new Error('refused') };
    const { resolve } = setUp({ failures });
    await expect(resolve({ choice: CHOICES.direct })).rejects.toThrow('refused');
    delete failures['check AKIADIRECTAAAAAAAAAA'];
    await expect(resolve({ choice: CHOICES.direct })).resolves.toMatchObject({ accountId: '100000000001' });
  });

  test('is not believed for the same id with another secret, or of another merchant', async () => {
    const { resolve, touched } = setUp();
    const poolKeys = new Set<string>();
    const secrets = ['a'.repeat(40), 'b'.repeat(40)];
    for (const secret of secrets) {
      const key = accessKey('AKIADIRECTAAAAAAAAAA', secret);
      const choice = { ...CHOICES.direct, accessKey: key } as const;
      poolKeys.add((await resolve({ choice })).poolKey);
      const merchant = merchantA({ id: 'merchant-b' as MerchantId });
      const other = await resolve({ choice, merchant, principal: principalOf(merchant.id) });
      poolKeys.add(other.poolKey);
    }
    const withToken = { ...accessKey('AKIADIRECTAAAAAAAAAA', secrets[0]), sessionToken: new Secret('token') };
    poolKeys.add((await resolve({ choice: { ...CHOICES.direct, accessKey: withToken } })).poolKey);
    expect(poolKeys.size).toBe(5);
    expect(touched.filter(isCheck)).toHaveLength(5);
    for (const poolKey of poolKeys) {
      expect(poolKey).toMatch(/^[\w-]{43}$/);
      for (const text of [...secrets, 'AKIADIRECT']) expect(poolKey).not.toContain(text);
    }
  });

  test('pool keys are of this process: another one names the same keys otherwise', async () => {
    const [first, second] = [setUp(), setUp()];
    const keys = await Promise.all([first, second].map((one) => one.resolve({ choice: CHOICES.direct })));
    expect(keys[0]?.poolKey).not.toBe(keys[1]?.poolKey);
  });
});

test('who the service itself is, is asked once; a failure is not kept', async () => {
  const failures: Record<string, Error> = { 'check AKIASERVICEAAAAAAAAA': new Error('down') };
  const { resolve, touched } = setUp({ failures });
  await expect(resolve({ choice: CHOICES['service-default'] })).rejects.toThrow('down');
  delete failures['check AKIASERVICEAAAAAAAAA'];
  for (let i = 0; i < 3; i++) await resolve({ choice: CHOICES['service-default'] });
  expect(touched.filter(isCheck)).toHaveLength(2);
});

test('which version is current is asked for every call', async () => {
  const { resolve, touched } = setUp();
  for (let i = 0; i < 3; i++) await resolve({ choice: CHOICES.stored });
  expect(touched.filter((step) => step.startsWith('current'))).toHaveLength(3);
});

const isCheck = (step: string) => step.startsWith('check');

function setUp(
  options: { failures?: Record<string, Error>; noService?: boolean; held?: boolean; role?: boolean } = {},
) {
  const touched: string[] = [];
  const clock = { ms: 1_000_000, now: (): number => clock.ms };
  const step = <T>(name: string, value: T): Promise<T> => {
    touched.push(name);
    const failure = options.failures?.[name];
    return failure === undefined ? Promise.resolve(value) : Promise.reject(failure);
  };
  const accounts: Record<string, string> = { direct: '100000000001', service: '400000000004' };
  const parts: ResolverParts = {
    clock,
    regions: REGIONS,
    audit: {
      append: (merchantId, { action, body }) =>
        step(`${action} ${merchantId} ${String(body?.['source'])}`, undefined),
    },
    vault: {
      holds: () => options.held === true,
      current: (_merchant, id) =>
        step(`current ${id}`, { version: 3, region: 'us-east-1', accountId: '300000000003' }),
      open: (_actor, _merchant, id) =>
        step<StoredMaterial>(`open ${id}`, options.role === true ? ROLE : (KEYS[id] ?? KEYS.direct)),
    },
    sessions: {
      open: () =>
        step('open session', {
          accessKey: KEYS.session,
          region: 'us-east-1',
          accountId: '200000000002',
          defaults: {},
        }),
    },
    roleSessions: new RoleSessions({
      store: { recordAsking: () => Promise.resolve() },
      assumer: {
        assume: ({ region }) => step(`assume ${region}`, { accessKey: KEYS.session, lifetimeMs: 3_600_000 }),
      },
      clock,
      max: 1,
    }),
    identity: {
      checkCredential: (credential) => {
        const id = (credential as AccessKey).accessKeyId;
        const who = id.includes('DIRECT') ? 'direct' : 'service';
        return step(`check ${id}`, { accountId: accounts[who], arn: 'arn:aws:iam::1:user/x' });
      },
    },
    ...(options.noService !== true && { serviceDefault: { accessKey: KEYS.service, region: 'us-east-1' } }),
  };
  const resolver = new CredentialResolver(parts);
  const resolve = (request: Pick<ResolveRequest, 'choice'> & Partial<ResolveRequest>) =>
    resolver.resolve({
      principal: principalOf('merchant-a' as MerchantId),
      merchant: merchantA(),
      actor: { subject: 'api-key:AAAAAAAAAAAA', requestId: 'req-1' },
      ...request,
    });
  return { resolve, touched, clock };
}

function merchantA(change: Partial<Merchant> = {}): Merchant {
  return {
    id: 'merchant-a' as MerchantId,
    name: 'A',
    status: 'active',
    plan: 'open@1',
    revision: 1,
    directAllowed: true,
    serviceDefaultsAllowed: true,
    regions: [],
    defaultCredentialId: DEFAULT,
    ...change,
  };
}

function principalOf(merchantId: MerchantId) {
  return { kind: 'merchant', merchantId, subject: 'api-key:AAAAAAAAAAAA', scopes: ['invoke'] } as const;
}

function accessKey(accessKeyId: string, secret = 's'.repeat(40)): AccessKey {
  return { kind: 'access-key', accessKeyId, secretAccessKey: new Secret(secret) };
}

async function refused(work: Promise<unknown>): Promise<ServiceError> {
  const error: unknown = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(ServiceError);
  return error as ServiceError;
}
