import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { parse as parseYaml } from 'yaml';
import { CredentialStore } from '../../src/credentials/credential-store.ts';
import { RoleActivation } from '../../src/credentials/role-activation.ts';
import { RoleStore } from '../../src/credentials/role-store.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import type { Role } from '../aws/sts/roles.ts';
import { AwsError } from '../aws/wire/errors.ts';
import { AWS } from '../support/aws-keys.ts';
import { movingClock } from '../support/moving-clock.ts';
import { converseBody, onboard, MerchantPerson, operatorOf, runtimeCalls } from '../support/people.ts';
import type { Answer } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { takeOver } from '../support/take-over.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const WIRE = `/model/${MODEL}/converse`;
const ACCOUNT = '300000000003';

let service: TestService;
let merchant: MerchantPerson;
let other: MerchantPerson;
let admin: pg.Client;
let roles = 0;
const monotonic = movingClock();

beforeAll(async () => {
  service = await startTestService({ OPENED_CREDENTIALS_TTL_MS: '60000', LOG_LEVEL: 'debug' }, undefined, {
    monotonic,
  });
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  merchant = await onboard(service, 'merchant-a');
  other = await onboard(service, 'merchant-b', { awsKey: AWS.merchantB });
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

interface Stored {
  id: string;
  externalId: string;
  state: string;
}

async function newRole(person = merchant, more: object = {}): Promise<Stored & { answer: Answer }> {
  const body = { kind: 'assume-role', name: 'role', region: 'us-east-1', ...more };
  const answer = await person.post('/credentials', body);
  expect(answer.status).toBe(201);
  return { ...(answer.json as unknown as Stored), answer };
}

/** A role of the merchant's account as its owner makes it. */
function makeRole(role: Partial<Role> = {}): string {
  roles += 1;
  const arn = `arn:aws:iam::${ACCOUNT}:role/path/merchant-bedrock-${String(roles)}`;
  service.standIn.addRole({ arn, trusts: [AWS.service.arn], ...role });
  return arn;
}

function activate(id: string, roleArn: string, person = merchant, more: object = {}): Promise<Answer> {
  monotonic.rest();
  return person.post(`/credentials/${id}/activate`, { roleArn, ...more });
}

function testOf(id: string, person = merchant): Promise<Answer> {
  monotonic.rest();
  return person.post(`/credentials/${id}/test`, undefined);
}

/** One that signs. */
async function activeRole(person = merchant): Promise<Stored & { roleArn: string }> {
  const stored = await newRole(person);
  const roleArn = makeRole({ externalId: stored.externalId });
  expect(await activate(stored.id, roleArn, person)).toMatchObject({ status: 200 });
  return { ...stored, roleArn };
}

function call(id: string, person = merchant): Promise<Answer> {
  return person.post(WIRE, converseBody('hello'), { 'x-bedrock-credential-id': id });
}

function assumed(): URLSearchParams[] {
  return service.standIn.journal
    .filter(({ operation }) => operation === 'AssumeRole')
    .map(({ bodyBase64 }) => new URLSearchParams(Buffer.from(bodyBase64, 'base64').toString()));
}

async function auditOf(person: MerchantPerson, id: string): Promise<string[]> {
  const { rows } = await admin.query<{ entry: string }>(
    `SELECT action || ' ' || outcome AS entry FROM audit_events WHERE merchant_id = $1 AND resource = $2 ORDER BY seq`,
    [person.merchantId, `credential/${id}`],
  );
  return rows.map(({ entry }) => entry);
}

async function versionsOf(id: string): Promise<{ state: string; shredded: boolean }[]> {
  const { rows } = await admin.query<{ state: string; shredded: boolean }>(
    `SELECT state, wrapped_key IS NULL AS shredded FROM credential_versions WHERE credential_id = $1`,
    [id],
  );
  return rows;
}

describe('onboarding a role', () => {
  test('pending with an ExternalId of its own; AWS is not asked about a role, and nothing lies in the vault', async () => {
    const { id, externalId, state, answer } = await newRole();
    expect(state).toBe('pending');
    expect(answer.json).toMatchObject({ accountId: null, principalArn: null, version: 0, isDefault: false });
    expect(externalId).toMatch(/^mbk-[0-9A-Za-z]{43}$/);
    expect(assumed()).toEqual([]);
    expect(await versionsOf(id)).toEqual([]);
    expect((await newRole()).externalId).not.toBe(externalId);
    const refused = await call(id);
    expect(refused).toMatchObject({ status: 409 });
    expect(refused.text).toContain('Activate it first');
    expect(runtimeCalls(service)).toEqual([]);
  });

  test.each([
    ['an ExternalId', { externalId: 'mbk-chosen-by-somebody-who-knows-why' }],
    ['a role that nobody proved', { roleArn: `arn:aws:iam::${ACCOUNT}:role/x` }],
    ['being the default before it signs', { makeDefault: true }],
    ['a model that is a pattern', { models: ['anthropic.*'] }],
    ['a model that is code', { models: ['${aws:username}'] }],
    ['a region that is none', { region: 'us-nowhere-1' }],
  ])('a client cannot choose %s', async (_name, more) => {
    const before = await merchant.get('/credentials');
    const body = { kind: 'assume-role', name: 'role', region: 'us-east-1', ...more };
    expect(await merchant.post('/credentials', body)).toMatchObject({ status: 400 });
    expect((await merchant.get('/credentials')).text).toBe(before.text);
  });

  test('activated it signs, for its merchant, with a session that says so and may call Bedrock only', async () => {
    const { id, externalId } = await newRole();
    const roleArn = makeRole({ externalId });
    const answer = await activate(id, roleArn);
    expect(answer).toMatchObject({ status: 200 });
    expect(answer.json).toMatchObject({
      state: 'active',
      version: 1,
      accountId: ACCOUNT,
      principalArn: roleArn,
      keyHint: `${ACCOUNT}:role/${roleArn.slice(roleArn.lastIndexOf('/') + 1)}`,
      externalId,
    });
    expect(await auditOf(merchant, id)).toEqual([
      'credential.created allowed',
      'aws.asked allowed',
      'credential.activated allowed',
    ]);

    service.standIn.forget();
    expect(await call(id)).toMatchObject({ status: 200 });
    expect(await call(id)).toMatchObject({ status: 200 });
    const [session, ...more] = assumed();
    expect(more).toEqual([]);
    expect(Object.fromEntries(session ?? [])).toMatchObject({
      RoleArn: roleArn,
      ExternalId: externalId,
      RoleSessionName: merchant.merchantId,
      DurationSeconds: '3600',
      'Tags.member.1.Key': 'merchant_id',
      'Tags.member.1.Value': merchant.merchantId,
      'Tags.member.2.Key': 'credential_id',
      'Tags.member.2.Value': id,
      'TransitiveTagKeys.member.1': 'merchant_id',
      'TransitiveTagKeys.member.2': 'credential_id',
    });
    const { Statement } = JSON.parse(session?.get('Policy') ?? '') as { Statement: { Action: string[] }[] };
    expect(Statement.flatMap(({ Action }) => Action).every((action) => action.startsWith('bedrock:'))).toBe(
      true,
    );
    expect(runtimeCalls(service)).toHaveLength(2);
    for (const entry of runtimeCalls(service))
      expect(entry).toMatchObject({ accountId: ACCOUNT, verified: true, executed: true });
    const [{ account_id: account }] = (
      await admin.query<{ account_id: string }>(
        `SELECT account_id FROM calls WHERE credential_id = $1 ORDER BY id DESC LIMIT 1`,
        [id],
      )
    ).rows as [{ account_id: string }];
    expect(account).toBe(ACCOUNT);
  });

  test('of the first call, counting, models and initialize with a role: all signed by its session', async () => {
    const { id } = await activeRole();
    service.standIn.forget();
    const headers = { 'x-bedrock-credential-id': id };
    const chat = await merchant.post('/chat', { modelId: MODEL, prompt: 'hello', credentialId: id });
    expect(chat.json).toMatchObject({ accountId: ACCOUNT });
    expect(await merchant.post('/initialize', { modelId: MODEL, credentialId: id })).toMatchObject({
      status: 200,
      json: { accountId: ACCOUNT, model: { status: 'ACTIVE' } },
    });
    const claude = 'anthropic.claude-3-5-haiku-20241022-v1:0';
    const body = { input: { converse: { messages: converseBody('hello').messages } } };
    const counted = await merchant.post(`/model/${claude}/count-tokens`, body, headers);
    expect(counted).toMatchObject({ status: 200 });
    const stream = await merchant.post(`${WIRE}-stream`, converseBody('hello'), headers);
    expect(stream.status).toBe(200);
    expect(assumed()).toHaveLength(1);
    const signed = service.standIn.journal.filter(({ service: name }) => name.startsWith('bedrock'));
    expect(new Set(signed.map(({ accountId }) => accountId))).toEqual(new Set([ACCOUNT]));
  });

  test('makeDefault at activation: the next call without a credential uses it', async () => {
    const person = await onboard(service, 'merchant-default');
    const { id, externalId } = await newRole(person);
    await activate(id, makeRole({ externalId }), person, { makeDefault: true });
    expect((await person.post('/chat', { modelId: MODEL, prompt: 'x' })).json).toMatchObject({
      accountId: ACCOUNT,
    });
  });

  test('an operator onboards a merchant with a role, and is told how to make it', async () => {
    const answer = await operatorOf(service).post('/api/ops/merchants', {
      id: 'merchant-roles',
      name: 'Roles',
      apiKey: { name: 'first' },
      credential: { kind: 'assume-role', name: 'main', region: 'eu-central-1', models: [MODEL] },
    });
    expect(answer).toMatchObject({ status: 201, json: { role: { servicePrincipalArn: AWS.service.arn } } });
    expect(await versionsOf(answer.json['credentialId'] as string)).toEqual([]);
  });

  test('only roles are activated, only by ARN, and only what is there', async () => {
    const { id } = await newRole();
    expect(await activate(merchant.credentialId, makeRole())).toMatchObject({ status: 409 });
    for (const arn of [
      'arn:aws:iam::300000000003:user/x',
      'arn:aws:sts::300000000003:assumed-role/x/y',
      'arn:aws:iam::30000000000:role/x',
      'merchant-bedrock',
      'arn:aws:iam::300000000003:role/',
      'arn:aws:iam::300000000003:role/*',
      'arn:aws:iam::300000000003:role/*/x',
    ])
      expect(await activate(id, arn)).toMatchObject({ status: 400 });
    expect(await activate(`cred_${'z'.repeat(22)}`, makeRole())).toMatchObject({ status: 404 });
    expect(await activate(id, makeRole(), other)).toMatchObject({ status: 404 });
    expect(assumed()).toEqual([]);
  });

  test('two at once, at two replicas: one version, one secret, and both are told that it works', async () => {
    await using replica = await startTestService({ ...service.env }, service.database);
    const { id, externalId } = await newRole();
    const roleArn = makeRole({ externalId });
    const { merchantId, credentialId, apiKeyId, token = '' } = merchant;
    const atTheReplica = new MerchantPerson(replica.url, { merchantId, credentialId, apiKeyId, token });
    const answers = await Promise.all([activate(id, roleArn), activate(id, roleArn, atTheReplica)]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    expect(await versionsOf(id)).toEqual([{ state: 'current', shredded: false }]);
    const kept = (operation: string) =>
      service.standIn.journal.filter((entry) => entry.operation === operation && entry.status === 200).length;
    expect(kept('CreateSecret') - kept('DeleteSecret')).toBe(1);
    expect(await call(id)).toMatchObject({ status: 200 });
  });

  test('one proof of a merchant at a time, and a rest after each: they spend what the service may ask AWS for all', async () => {
    const [{ id, externalId }, second] = [await newRole(), await newRole()];
    const roleArn = makeRole({ externalId });
    monotonic.rest();
    const proofs = [id, second.id, id, id].map((one) =>
      merchant.post(`/credentials/${one}/activate`, { roleArn }),
    );
    const statuses = (await Promise.all(proofs)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 429)).toHaveLength(3);
    expect(assumed().length).toBeLessThanOrEqual(5);

    expect(await activate(id, roleArn)).toMatchObject({ status: 200 });
    service.standIn.forget();
    const refused = await merchant.post(`/credentials/${id}/test`, undefined);
    expect(refused).toMatchObject({ status: 429, json: { code: 'limit.rate_exceeded' } });
    expect(refused.headers.get('retry-after')).toBe('5');
    expect(assumed()).toEqual([]);
    expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({
      state: 'active',
      testedAt: null,
    });
    const theirs = await newRole(other);
    const elsewhere = { roleArn: makeRole({ externalId: theirs.externalId }) };
    expect(await other.post(`/credentials/${theirs.id}/activate`, elsewhere)).toMatchObject({ status: 200 });
    expect(await testOf(id)).toMatchObject({ status: 200 });
  });
});

describe('a role that is not proven is never used', () => {
  const someTag = (tags: Readonly<Record<string, string>>) => Object.keys(tags).length > 0;

  test.each<[string, (externalId: string) => Partial<Role>]>([
    ['asks for no ExternalId', () => ({})],
    ['takes any, but needs one', () => ({ admits: ({ externalId }) => externalId !== null })],
    [
      'takes what looks like ours',
      () => ({ admits: ({ externalId }) => externalId?.startsWith('mbk-') === true }),
    ],
    [
      'takes the right one or none',
      (right) => ({ admits: ({ externalId }) => externalId === null || externalId === right }),
    ],
    [
      'asks for it only where there are tags',
      (right) => ({ admits: ({ externalId, tags }) => externalId === right || !someTag(tags) }),
    ],
    [
      'asks for it only where there are none',
      (right) => ({ admits: ({ externalId, tags }) => externalId === right || someTag(tags) }),
    ],
    [
      'lets none in, with tags',
      (right) => ({
        admits: ({ externalId, tags }) => externalId === right || (externalId === null && someTag(tags)),
      }),
    ],
    [
      'lets none in, without tags',
      (right) => ({
        admits: ({ externalId, tags }) => externalId === right || (externalId === null && !someTag(tags)),
      }),
    ],
  ])('a trust policy that %s: unsafe, said how to mend, and no call is signed', async (_name, lax) => {
    const { id, externalId } = await newRole();
    const roleArn = makeRole(lax(externalId));
    const answer = await activate(id, roleArn);
    expect(answer).toMatchObject({ status: 409, json: { code: 'credential.unsafe' } });
    expect(answer.text).toContain(roleArn);
    expect(JSON.parse(answer.json['statement'] as string)).toMatchObject({
      Effect: 'Allow',
      Principal: { AWS: AWS.service.arn },
      Action: 'sts:AssumeRole',
      Condition: { StringEquals: { 'sts:ExternalId': externalId } },
    });
    expect((answer.json['problems'] as string[]).length).toBeGreaterThan(0);
    expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({ state: 'unsafe', version: 0 });
    expect((await auditOf(merchant, id)).at(-1)).toBe('credential.unsafe denied');
    expect(await versionsOf(id)).toEqual([]);

    expect(await call(id)).toMatchObject({ status: 409 });
    expect(await merchant.send('PATCH', `/credentials/${id}`, { isDefault: true })).toMatchObject({
      status: 409,
    });
    expect(runtimeCalls(service)).toEqual([]);

    service.standIn.addRole({ arn: roleArn, trusts: [AWS.service.arn], externalId });
    expect(await activate(id, roleArn)).toMatchObject({ status: 200, json: { state: 'active', version: 1 } });
    expect(await call(id)).toMatchObject({ status: 200 });
  });

  test.each<[string, (externalId: string) => Partial<Role>, string]>([
    ['names another principal', (externalId) => ({ externalId, trusts: [AWS.merchantB.arn] }), 'role-denied'],
    ['asks for another ExternalId', () => ({ externalId: 'mbk-of-somebody-else' }), 'role-denied'],
    ['does not let tags in', (externalId) => ({ externalId, taggable: false }), 'role-tags'],
  ])('a trust policy that %s: refused, still pending', async (_name, role, refusal) => {
    const { id, externalId } = await newRole();
    const answer = await activate(id, makeRole(role(externalId)));
    expect(answer).toMatchObject({ status: 422, json: { code: 'credential.refused_by_aws', refusal } });
    expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({ state: 'pending', version: 0 });
    expect(await call(id)).toMatchObject({ status: 409 });
  });

  test('a question that AWS did not answer proves nothing', async () => {
    const { id, externalId } = await newRole();
    const throttle = { Throttling: 429, ServiceUnavailable: 502 };
    for (const [name, status] of Object.entries(throttle)) {
      const arn = makeRole({
        admits: (asked) => {
          if (asked.externalId === externalId) return true;
          throw new AwsError(name, 'not now', { status: name === 'Throttling' ? 400 : 503 });
        },
      });
      expect(await activate(id, arn)).toMatchObject({ status });
      expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({ state: 'pending', version: 0 });
    }
  });

  test('what AWS let in is unsafe, although it did not answer the other questions', async () => {
    const { id, externalId } = await newRole();
    const arn = makeRole({
      admits: (asked) => {
        if (asked.externalId === externalId || asked.externalId === null) return true;
        throw new AwsError('Throttling', 'not now', { status: 400 });
      },
    });
    expect(await activate(id, arn)).toMatchObject({ status: 409, json: { code: 'credential.unsafe' } });
    expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({ state: 'unsafe', version: 0 });
  });

  test('a role that turns lax later is found by its test, and stops at once', async () => {
    const { id, roleArn, externalId } = await activeRole();
    expect(await call(id)).toMatchObject({ status: 200 });
    expect(await testOf(id)).toMatchObject({
      status: 200,
      json: { identity: { accountId: ACCOUNT } },
    });
    service.standIn.addRole({ arn: roleArn });
    service.standIn.forget();
    expect(await testOf(id)).toMatchObject({
      status: 409,
      json: { code: 'credential.unsafe' },
    });
    expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({
      state: 'unsafe',
      testResult: 'credential.unsafe',
      version: 1,
    });
    expect(await call(id)).toMatchObject({ status: 409 });
    expect(runtimeCalls(service)).toEqual([]);
    service.standIn.addRole({ arn: roleArn, externalId });
    expect(await activate(id, roleArn)).toMatchObject({ status: 200, json: { version: 1 } });
    expect(await versionsOf(id)).toEqual([{ state: 'current', shredded: false }]);
    expect(await call(id)).toMatchObject({ status: 200 });
  });

  describe('while something else is done to it', () => {
    let database: Database;
    let store: RoleStore;
    beforeAll(() => {
      database = new Database({
        url: new Secret(service.database.url),
        connectionsMax: 2,
        statementTimeoutMs: 5_000,
        onPoolError: () => undefined,
      });
      store = new RoleStore(database);
    });
    afterAll(() => database[Symbol.asyncDispose]());
    const of = (id: string) => ({
      actor: { subject: 'api-key:of-another-replica', requestId: 'another' },
      merchantId: merchant.merchantId as MerchantId,
      credentialId: id as CredentialId,
    });

    test('frozen while it is found unsafe: recorded, still frozen, and thawed it is unsafe', async () => {
      const { id, roleArn } = await activeRole();
      const turn = (way: 'freeze' | 'thaw') => merchant.post(`/credentials/${id}/${way}`, {});
      expect(await turn('freeze')).toMatchObject({ status: 200, json: { state: 'frozen' } });
      await expect(store.foundUnsafe(of(id), roleArn, ['without an ExternalId'])).resolves.toBeUndefined();
      expect((await auditOf(merchant, id)).at(-1)).toBe('credential.unsafe denied');
      expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({ state: 'frozen' });
      expect(await activate(id, roleArn)).toMatchObject({ status: 409 });
      expect(await turn('thaw')).toMatchObject({ status: 200, json: { state: 'unsafe' } });
      expect(await call(id)).toMatchObject({ status: 409 });
      // Proven again it is as if nothing had been.
      expect(await activate(id, roleArn)).toMatchObject({ status: 200, json: { state: 'active' } });
      await turn('freeze');
      expect(await turn('thaw')).toMatchObject({ status: 200, json: { state: 'active' } });
    });

    test('found unsafe elsewhere after this proof began: the older word does not undo it', async () => {
      const { id, roleArn } = await activeRole();
      const never = () => Promise.reject(new Error('nothing to seal'));
      const activation = new RoleActivation({
        store: new CredentialStore(database),
        roleStore: store,
        proof: {
          prove: async () => {
            await store.foundUnsafe(of(id), roleArn, ['without an ExternalId']);
            return { accountId: ACCOUNT, arn: roleArn };
          },
        },
        assumer: { ownPrincipal: never },
        audit: { append: () => Promise.resolve() },
        secrets: { seal: never },
        leftovers: { announce: never, remove: never },
        regions: [],
        forget: () => undefined,
        onLeftover: () => undefined,
      });
      const { actor, merchantId, credentialId } = of(id);
      // Also where it was unsafe before both.
      for (let times = 0; times < 2; times += 1) {
        await expect(
          activation.activate(actor, merchantId, credentialId, { roleArn, makeDefault: false }),
        ).rejects.toMatchObject({ code: 'credential.not_usable' });
        expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({ state: 'unsafe' });
      }
      expect(await activate(id, roleArn)).toMatchObject({ status: 200, json: { state: 'active' } });
    });
  });

  test('account and role are pinned by the first activation', async () => {
    const { id, externalId, roleArn } = await activeRole();
    const elsewhere = 'arn:aws:iam::400000000004:role/merchant-bedrock';
    service.standIn.addRole({ arn: elsewhere, externalId });
    expect(await activate(id, elsewhere)).toMatchObject({
      status: 409,
      json: { code: 'credential.not_usable' },
    });
    expect((await merchant.get(`/credentials/${id}`)).json).toMatchObject({
      state: 'active',
      accountId: ACCOUNT,
      principalArn: roleArn,
    });
    // Not by the service's own login either, whatever code there were.
    const app = new pg.Client({ connectionString: service.database.url });
    await app.connect();
    try {
      await app.query(`SELECT set_config('app.merchant_id', '${merchant.merchantId}', false)`);
      await expect(app.query(`UPDATE credentials SET account_id = '400000000004'`)).rejects.toThrow(
        /permission/,
      );
      await expect(app.query(`UPDATE credentials SET external_id = 'x'`)).rejects.toThrow(/permission/);
      const { rows } = await app.query<{ verdict: string }>(
        `SELECT credential_proven('${merchant.merchantId}', '${id}',
          '{"state": "active", "roleArn": "${elsewhere}", "accountId": "400000000004", "keyHint": "x", "sealed": null}') AS verdict`,
      );
      expect(rows[0]?.verdict).toBe('role');
    } finally {
      await app.end();
    }
  });
});

describe('in use', () => {
  test('a role that is deleted later: a clear refusal, nothing in its place, and it works again at once', async () => {
    const { id, roleArn, externalId } = await activeRole();
    service.standIn.removeRole(roleArn);
    for (let times = 0; times < 2; times += 1) {
      const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId: id });
      expect(answer).toMatchObject({
        status: 422,
        json: { code: 'credential.refused_by_aws', refusal: 'role-denied' },
      });
      expect(answer.json['detail']).toContain('/policies');
    }
    expect(runtimeCalls(service)).toEqual([]);
    service.standIn.addRole({ arn: roleArn, externalId });
    expect(await call(id)).toMatchObject({ status: 200 });
  });

  test('a role that is deleted is found by the environment test, although its session lasts', async () => {
    const person = await onboard(service, 'merchant-path');
    const { id, externalId } = await newRole(person);
    const roleArn = makeRole({ externalId });
    await activate(id, roleArn, person, { makeDefault: true });
    expect(await call(id, person)).toMatchObject({ status: 200 });
    service.standIn.removeRole(roleArn);
    const { json } = await person.get('/environment/test');
    const { steps } = json as { steps: { step: string; status: string; code?: string }[] };
    expect(steps.find(({ step }) => step === 'credential')).toMatchObject({
      status: 'failed',
      code: 'credential.refused_by_aws',
    });
    expect(await call(id, person)).toMatchObject({ status: 422 });
  });

  test('two merchants with the same role: other ExternalIds, other sessions, and neither can use the other’s', async () => {
    const [mine, theirs] = [await newRole(merchant), await newRole(other)];
    const arn = makeRole({
      admits: ({ externalId, tags }) =>
        (externalId === mine.externalId && tags['merchant_id'] === merchant.merchantId) ||
        (externalId === theirs.externalId && tags['merchant_id'] === other.merchantId),
    });
    expect((await activate(mine.id, arn)).status).toBe(200);
    expect((await activate(theirs.id, arn, other)).status).toBe(200);
    service.standIn.forget();
    expect(await call(mine.id)).toMatchObject({ status: 200 });
    expect(await call(theirs.id, other)).toMatchObject({ status: 200 });
    expect(assumed().map((form) => form.get('ExternalId'))).toEqual([mine.externalId, theirs.externalId]);
    const keys = runtimeCalls(service).map(({ accessKeyId }) => accessKeyId);
    expect(new Set(keys).size).toBe(2);
  });

  test('what is tested or activated while STS is away goes on with the session it has', async () => {
    const { id, roleArn } = await activeRole();
    expect(await call(id)).toMatchObject({ status: 200 });
    service.standIn.forget();
    const fault = service.standIn.fault({
      operation: 'AssumeRole',
      status: 500,
      type: 'InternalFailure',
      times: 'always',
    });
    try {
      for (const ask of [() => testOf(id), () => activate(id, roleArn)]) {
        expect(await ask()).toMatchObject({ status: 502, json: { code: 'upstream.unreachable' } });
        expect(await call(id)).toMatchObject({ status: 200 });
      }
    } finally {
      fault.remove();
    }
    expect(new Set(runtimeCalls(service).map(({ accessKeyId }) => accessKeyId)).size).toBe(1);
  });

  test('a test or an activation that came too soon costs no session', async () => {
    using _standing = monotonic.stand();
    const { id, roleArn } = await activeRole();
    expect(await call(id)).toMatchObject({ status: 200 });
    service.standIn.forget();
    for (const [what, body] of [
      ['test', undefined],
      ['activate', { roleArn }],
    ] as const) {
      const refused = await merchant.post(`/credentials/${id}/${what}`, body);
      expect(refused).toMatchObject({ status: 429, json: { code: 'limit.rate_exceeded' } });
      expect(await call(id)).toMatchObject({ status: 200 });
    }
    expect(assumed()).toEqual([]);
  });

  test('a test that AWS refuses ends the session', async () => {
    const { id, roleArn } = await activeRole();
    expect(await call(id)).toMatchObject({ status: 200 });
    service.standIn.removeRole(roleArn);
    expect(await testOf(id)).toMatchObject({ status: 422, json: { code: 'credential.refused_by_aws' } });
    service.standIn.forget();
    expect((await call(id)).status).toBe(422);
    expect(runtimeCalls(service)).toEqual([]);
  });

  test('a hundred first calls at once are one session', async () => {
    const { id, externalId } = await activeRole();
    service.standIn.forget();
    const answers = await Promise.all(Array.from({ length: 100 }, () => call(id)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(assumed().filter((form) => form.get('ExternalId') === externalId)).toHaveLength(1);
  });

  test('deleted: shredded like every other kind, and its session is gone with it', async () => {
    const { id } = await activeRole();
    await call(id);
    expect((await merchant.send('DELETE', `/credentials/${id}`)).status).toBe(204);
    expect(await versionsOf(id)).toEqual([{ state: 'destroyed', shredded: true }]);
    service.standIn.forget();
    expect(await call(id)).toMatchObject({ status: 404 });
    expect(service.standIn.journal).toEqual([]);
    const pending = await newRole();
    expect((await merchant.send('DELETE', `/credentials/${pending.id}`)).status).toBe(204);
  });

  test('where AWS cannot pack the policy, a shorter one is asked for, and never none', async () => {
    const { id } = await activeRole();
    service.standIn.forget();
    const tooLarge = { operation: 'AssumeRole', status: 400, type: 'PackedPolicyTooLarge' };
    service.standIn.fault({ ...tooLarge, times: 1 });
    expect(await call(id)).toMatchObject({ status: 200 });
    const [first = '', second = ''] = assumed().map((form) => form.get('Policy') ?? '');
    expect(second.length).toBeLessThan(first.length);
    expect(second).toContain('"bedrock:InvokeModel*"');

    const more = await activeRole();
    service.standIn.forget();
    service.standIn.fault({ ...tooLarge, times: 'always' });
    const refused = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId: more.id });
    expect(refused).toMatchObject({ status: 422, json: { refusal: 'session-policy' } });
    expect(assumed().every((form) => form.has('Policy'))).toBe(true);
  });

  test('what became of a lost call is read from the logs with a session that may do that and nothing else', async () => {
    const lookAgain = takeOver(service.service, 'reconcile');
    const person = await onboard(service, 'merchant-logs');
    const { id } = await activeRole(person);
    service.standIn.forget();
    service.standIn.logInvocations({ accountId: ACCOUNT, region: 'us-east-1', logGroup: 'bedrock/logs' });
    const invocationLogs = { credentialId: id, cloudWatch: { logGroup: 'bedrock/logs' } };
    const at = `/api/ops/merchants/${person.merchantId}`;
    expect((await operatorOf(service).send('PATCH', at, { invocationLogs })).status).toBe(200);
    service.standIn.fault({ operation: 'Converse', cutBody: true });
    expect(await call(id, person)).toMatchObject({ status: 502 });
    await admin.query(`UPDATE calls SET reconcile_at = now() WHERE merchant_id = $1`, [person.merchantId]);
    await lookAgain();
    const { rows } = await admin.query(`SELECT state, provenance FROM calls WHERE merchant_id = $1`, [
      person.merchantId,
    ]);
    expect(rows).toEqual([{ state: 'settled', provenance: 'log' }]);
    const [calling, reading] = assumed().map((form) => form.get('Policy') ?? '');
    expect(calling).not.toContain('logs:');
    expect(JSON.parse(reading ?? '')).toMatchObject({
      Statement: [
        { Action: ['logs:FilterLogEvents'], Resource: ['arn:aws:logs:*:*:log-group:bedrock/logs:*'] },
      ],
    });
  });

  test('a merchant that is suspended: its sessions are forgotten', async () => {
    const person = await onboard(service, 'merchant-stopped');
    const { id } = await activeRole(person);
    const at = `/api/ops/merchants/${person.merchantId}`;
    expect(await call(id, person)).toMatchObject({ status: 200 });
    expect((await operatorOf(service).send('PATCH', at, { status: 'suspended' })).status).toBe(200);
    await operatorOf(service).send('PATCH', at, { status: 'active' });
    service.standIn.forget();
    expect(await call(id, person)).toMatchObject({ status: 200 });
    expect(assumed()).toHaveLength(1);
  });

  test("the service's own identity that does not work is not the merchant's fault", async () => {
    const { id } = await activeRole();
    service.standIn.fault({ operation: 'AssumeRole', times: 1, status: 403, type: 'ExpiredToken' });
    const answer = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId: id });
    expect(answer).toMatchObject({ status: 502, json: { code: 'upstream.unreachable' } });
    expect(answer.json['detail']).toContain('own AWS identity');
    expect(await call(id)).toMatchObject({ status: 200 });
  });

  test('nothing of a session is in an answer, in the log or in the database', async () => {
    const { id } = await activeRole();
    service.standIn.forget();
    const texts = [await call(id), await testOf(id)].map(
      ({ text, headers }) => text + JSON.stringify([...headers]),
    );
    texts.push((await merchant.get('/credentials')).text, (await merchant.get('/audit')).text);
    const sessions = runtimeCalls(service).map(({ accessKeyId = '' }) => accessKeyId);
    expect(sessions[0]).toMatch(/^ASIA/);
    const { rows: tables } = await admin.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`,
    );
    for (const { name } of tables) {
      const { rows } = await admin.query<{ row: string }>(`SELECT t::text AS row FROM "${name}" t`);
      texts.push(...rows.map(({ row }) => row));
    }
    texts.push(...service.logLines);
    const all = texts.join('\n');
    for (const entry of service.standIn.journal) {
      const token = entry.headers['x-amz-security-token'];
      if (token !== undefined && token !== '[present]') expect(all).not.toContain(token);
    }
    for (const accessKeyId of sessions) expect(all).not.toContain(accessKeyId);
    expect(all).not.toMatch(/ASIA[0-9A-F]{16}/);
  });
});

describe('a session that AWS refuses', () => {
  const MINUTE_MS = 61_000;
  const NOT_KNOWN = { service: 'bedrock-runtime', status: 403, type: 'UnrecognizedClientException' } as const;
  const DENIED = {
    service: 'bedrock-runtime',
    status: 403,
    type: 'AccessDeniedException',
    message:
      `User: arn:aws:sts::${ACCOUNT}:assumed-role/x/y is not authorized to perform: bedrock:InvokeModel on resource: ` +
      `arn:aws:bedrock:us-east-1::foundation-model/${MODEL} with an explicit deny in an identity-based policy`,
  } as const;

  /** One that signed a call some time ago, and the id of its session's key. */
  async function usedRole(): Promise<{ id: string; session: string }> {
    const { id } = await activeRole();
    expect(await call(id)).toMatchObject({ status: 200 });
    const session = runtimeCalls(service).at(-1)?.accessKeyId ?? '';
    monotonic.forward(MINUTE_MS);
    service.standIn.forget();
    return { id, session };
  }

  async function rowsOf(id: string): Promise<string[]> {
    const { rows } = await admin.query<{ state: string }>(
      'SELECT state FROM calls WHERE credential_id = $1 ORDER BY id',
      [id],
    );
    return rows.map(({ state }) => state);
  }

  const signers = () => runtimeCalls(service).map(({ accessKeyId = '' }) => accessKeyId);

  test.each(['converse', 'converse-stream'])(
    '%s: the call is made once more with a new one, under a row of its own and the same Idempotency-Key',
    async (operation) => {
      const { id, session } = await usedRole();
      service.standIn.fault({ ...NOT_KNOWN, accessKeyId: session, times: 'always' });
      const send = () =>
        merchant.post(`/model/${MODEL}/${operation}`, converseBody('hello'), {
          'x-bedrock-credential-id': id,
          'idempotency-key': `refused session ${operation}`.replaceAll(' ', '-'),
        });
      const answer = await send();
      expect(answer.status).toBe(200);
      expect(await rowsOf(id)).toEqual(['settled', 'void', 'settled']);
      expect(signers()).toEqual([session, expect.not.stringMatching(session)]);
      expect(runtimeCalls(service).map(({ executed }) => executed)).toEqual([false, true]);
      expect(assumed()).toHaveLength(1);

      const again = await send();
      expect(again.headers.get('x-bedrock-idempotent-replay')).toBe('true');
      expect(again.text).toBe(answer.text);
      expect(await call(id)).toMatchObject({ status: 200 });
      expect(signers().slice(2)).toEqual(signers().slice(1, 2));
      expect(assumed()).toHaveLength(1);
    },
  );

  test('in a hundred calls at once: all are answered, and one session is asked for', async () => {
    const { id, session } = await usedRole();
    service.standIn.fault({ ...NOT_KNOWN, accessKeyId: session, times: 'always' });
    const answers = await Promise.all(Array.from({ length: 100 }, () => call(id)));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(assumed()).toHaveLength(1);
    expect(new Set(signers()).size).toBe(2);
  });

  test('the new one is refused too: that is the answer, and the next call asks for no other', async () => {
    const { id, session } = await usedRole();
    const fault = service.standIn.fault({ ...NOT_KNOWN, times: 'always' });
    try {
      const answer = await call(id);
      expect(answer.status).toBe(403);
      expect(answer.headers.get('x-bedrock-error-code')).toBe('credential.refused_by_aws');
      expect(await rowsOf(id)).toEqual(['settled', 'void', 'void']);
      expect(signers()).toEqual([session, expect.not.stringMatching(session)]);
      expect(
        (await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId: id })).json,
      ).toMatchObject({ code: 'credential.refused_by_aws' });
      expect(signers()).toHaveLength(3);
      expect(assumed()).toHaveLength(1);
    } finally {
      fault.remove();
    }
  });

  test('STS does not let the service in any more: the refusal is the answer, and the session is gone', async () => {
    const { id, roleArn } = await activeRole();
    expect(await call(id)).toMatchObject({ status: 200 });
    const session = runtimeCalls(service).at(-1)?.accessKeyId ?? '';
    monotonic.forward(MINUTE_MS);
    service.standIn.removeRole(roleArn);
    service.standIn.fault({ ...NOT_KNOWN, accessKeyId: session, times: 'always' });
    expect((await call(id)).headers.get('x-bedrock-error-code')).toBe('credential.refused_by_aws');
    expect(await rowsOf(id)).toEqual(['settled', 'void']);
    const next = await merchant.post('/chat', { modelId: MODEL, prompt: 'x', credentialId: id });
    expect(next.json).toMatchObject({ code: 'credential.refused_by_aws', refusal: 'role-denied' });
  });

  test('an explicit deny may be the end of its sessions: renewed once behind the next call, nothing is made again', async () => {
    const { id, session } = await usedRole();
    const fault = service.standIn.fault({ ...DENIED, accessKeyId: session, times: 'always' });
    expect((await call(id)).status).toBe(403);
    expect(await rowsOf(id)).toEqual(['settled', 'void']);
    expect(assumed()).toEqual([]);
    for (const end = Date.now() + 20_000; (await call(id)).status !== 200;)
      expect(Date.now()).toBeLessThan(end);
    expect(assumed()).toHaveLength(1);
    fault.remove();

    // A deny of the action meets the new session as well, and asks for no other.
    service.standIn.fault({ ...DENIED, times: 3 });
    for (let times = 0; times < 3; times += 1) expect((await call(id)).status).toBe(403);
    expect(await call(id)).toMatchObject({ status: 200 });
    expect(assumed()).toHaveLength(1);
  });

  test('an explicit deny while STS is away: the session serves on', async () => {
    const { id, session } = await usedRole();
    const away = service.standIn.fault({
      operation: 'AssumeRole',
      status: 500,
      type: 'InternalFailure',
      times: 'always',
    });
    try {
      service.standIn.fault(DENIED);
      expect((await call(id)).status).toBe(403);
      for (let times = 0; times < 3; times += 1) expect(await call(id)).toMatchObject({ status: 200 });
      expect(new Set(signers())).toEqual(new Set([session]));
    } finally {
      away.remove();
    }
  });
});

describe('how to make the role', () => {
  interface Kit {
    externalId: string;
    servicePrincipalArn: string;
    roleName: string;
    trustPolicy: { Statement: { Action: string; Condition: object }[] };
    permissionPolicy: { Statement: { Action: string[]; Resource: string[] }[] };
    json: string;
    terraform: string;
    cloudFormation: string;
  }

  test('three forms that say the same, in the reply of POST and again under /policies', async () => {
    const models = [MODEL, 'us.anthropic.claude-3-5-haiku-20241022-v1:0'];
    const { id, externalId, answer } = await newRole(merchant, { models });
    const kit = answer.json['role'] as Kit;
    expect(kit).toMatchObject({ externalId, servicePrincipalArn: AWS.service.arn });
    expect(kit.trustPolicy.Statement).toMatchObject([
      { Action: 'sts:AssumeRole', Condition: { StringEquals: { 'sts:ExternalId': externalId } } },
      {
        Action: 'sts:TagSession',
        Condition: {
          StringEquals: {
            'aws:RequestTag/merchant_id': merchant.merchantId,
            'aws:RequestTag/credential_id': id,
          },
        },
      },
    ]);
    const { trustPolicy, permissionPolicy, roleName } = kit;
    expect(JSON.parse(kit.json)).toEqual({ roleName, trustPolicy, permissionPolicy });

    const encoded = [...kit.terraform.matchAll(/jsonencode\((\{[\s\S]*?\n {2}\})\)/g)].map(
      ([, text = '']) => text,
    );
    expect(encoded.map((text) => JSON.parse(text) as unknown)).toEqual([trustPolicy, permissionPolicy]);
    expect(hclProblems(kit.terraform)).toEqual([]);
    expect(kit.terraform).toContain(`name                 = "${roleName}"`);

    const template = parseYaml(kit.cloudFormation, {
      customTags: [{ tag: '!GetAtt', resolve: (text: string) => ({ GetAtt: text }) }],
    }) as { Resources: { MerchantBedrockRole: { Properties: Record<string, unknown> } } };
    expect(template.Resources.MerchantBedrockRole.Properties).toMatchObject({
      RoleName: roleName,
      AssumeRolePolicyDocument: trustPolicy,
      Policies: [{ PolicyName: 'bedrock', PolicyDocument: permissionPolicy }],
    });

    const again = await merchant.get(`/credentials/${id}/policies?models=${models.join(',')}`);
    expect(again.json).toEqual(kit);
    for (const [format, type, text] of [
      ['json', 'application/json', kit.json],
      ['terraform', 'text/plain', kit.terraform],
      ['cloudformation', 'application/yaml', kit.cloudFormation],
    ] as const) {
      const file = await merchant.get(
        `/credentials/${id}/policies?models=${models.join(',')}&format=${format}`,
      );
      expect(file.text).toBe(text);
      expect(file.headers.get('content-type')).toContain(type);
    }
  });

  test('the permissions name what was asked for, and never anything but Bedrock', async () => {
    const { id } = await newRole();
    const resources = async (query: string) => {
      const { json } = await merchant.get(`/credentials/${id}/policies${query}`);
      const { Statement } = (json as unknown as Kit).permissionPolicy;
      expect(Statement.flatMap(({ Action }) => Action).every((one) => one.startsWith('bedrock:'))).toBe(true);
      return Statement.filter(({ Action }) => Action.includes('bedrock:InvokeModel')).flatMap(
        (one) => one.Resource,
      );
    };
    expect(await resources(`?models=${MODEL}`)).toEqual([
      `arn:aws:bedrock:us-east-1::foundation-model/${MODEL}`,
    ]);
    expect(await resources('?models=eu.amazon.nova-micro-v1:0')).toEqual([
      'arn:aws:bedrock:us-east-1:*:inference-profile/eu.amazon.nova-micro-v1:0',
      `arn:aws:bedrock:*::foundation-model/${MODEL}`,
    ]);
    expect(await resources('')).toContain('arn:aws:bedrock:us-east-1::foundation-model/*');
    const long = Array.from(
      { length: 50 },
      (_, at) => `us.anthropic.claude-sonnet-4-202505${String(at)}-v1:0`,
    );
    const { status, json } = await merchant.get(`/credentials/${id}/policies?models=${long.join(',')}`);
    expect([status, json['code']]).toEqual([400, 'request.invalid']);
  });

  test.each(['?format=xml', '?models=a*', '?models=', '?other=1'])('refused: %s', async (query) => {
    const { id } = await newRole();
    expect((await merchant.get(`/credentials/${id}/policies${query}`)).status).toBe(400);
  });

  test('other kinds have none', async () => {
    expect((await merchant.get(`/credentials/${merchant.credentialId}/policies`)).status).toBe(409);
  });
});

/** What is wrong with HCL's brackets, quotes and template marks: all that a document in it could break. */
function hclProblems(text: string): string[] {
  const plain = text.replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
  const open: string[] = [];
  for (const mark of plain.match(/[[\](){}]/g) ?? []) {
    const opening = { ']': '[', ')': '(', '}': '{' }[mark];
    if (opening === undefined) open.push(mark);
    else if (open.pop() !== opening) return [`unbalanced ${mark}`];
  }
  const marks = /(?<![$%])[$%]\{/.test(text) ? ['a template mark that is not escaped'] : [];
  return [
    ...open.map((mark) => `${mark} stays open`),
    ...(plain.includes('"\n"') ? ['odd quotes'] : []),
    ...marks,
  ];
}
