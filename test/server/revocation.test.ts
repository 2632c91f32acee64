import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/env.ts';
import { AwsSecretVault } from '../../src/credentials/vault-aws.ts';
import type { SealedVersion } from '../../src/credentials/secret-vault.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { AWS } from '../support/aws-keys.ts';
import { withAdmin } from '../support/limits.ts';
import { converseBody, onboard, operatorOf, Person, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startReceiver } from '../support/receiver.ts';
import { startReplica } from '../support/replicas.ts';
import type { Replica } from '../support/replicas.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const CHAT = { modelId: MODEL, prompt: 'hi' };

let service: TestService;
let other: Replica;

beforeAll(async () => {
  service = await startTestService();
  other = await startReplica(service);
});
afterAll(async () => {
  await other[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

/** The same person, at the other service. */
function elsewhere(of: MerchantPerson): Person {
  return new Person(other.url + of.prefix, of.token);
}

async function actionsOf(merchantId: string): Promise<{ action: string; body: string; actor: string }[]> {
  const trail = await operatorOf(service).get(`/api/ops/audit?merchantId=${merchantId}&limit=100`);
  return (trail.json['items'] as { action: string; body: string; actor: string }[]).reverse();
}

describe('freezing a credential', () => {
  test('stops calls on every replica at once, changes nothing else, and is undone', async () => {
    const merchant = await onboard(service, 'merchant-freeze');
    const path = `/credentials/${merchant.credentialId}`;
    const stored = await merchant.post('/credentials', {
      kind: 'access-key',
      name: 'second',
      region: 'us-east-1',
      awsAccessKeyId: AWS.merchantADirect.accessKeyId,
      awsSecretAccessKey: AWS.merchantADirect.secretAccessKey,
    });
    const second = { credentialId: String(stored.json['id']) };
    // Both services remember it.
    for (const person of [merchant, elsewhere(merchant)])
      expect((await person.post('/chat', CHAT)).status).toBe(200);
    const sent = runtimeCalls(service).length;

    const frozen = await merchant.post(`${path}/freeze`, { reason: 'it leaked' });
    expect(frozen).toMatchObject({ status: 200, json: { state: 'frozen', isDefault: true } });
    for (const person of [merchant, elsewhere(merchant)]) {
      // Named or the default: never another one in its place.
      for (const body of [CHAT, { ...CHAT, credentialId: merchant.credentialId }])
        expect(await person.post('/chat', body)).toMatchObject({
          status: 409,
          json: { code: 'credential.not_usable' },
        });
      expect((await person.post('/initialize', {})).json).toMatchObject({ code: 'credential.not_usable' });
      expect((await person.get(path)).json).toMatchObject({ state: 'frozen' });
    }
    expect(runtimeCalls(service)).toHaveLength(sent);
    expect((await merchant.post(`${path}/test`, {})).json).toMatchObject({ code: 'credential.not_usable' });
    expect((await merchant.post('/chat', { ...CHAT, ...second })).status).toBe(200);
    expect((await merchant.post(`${path}/freeze`, {})).status).toBe(200);

    expect((await merchant.post(`${path}/thaw`, {})).json).toMatchObject({ state: 'active' });
    expect((await merchant.post(`${path}/thaw`, {})).status).toBe(200);
    for (const person of [merchant, elsewhere(merchant)])
      expect((await person.post('/chat', CHAT)).status).toBe(200);
    const trail = await actionsOf(merchant.merchantId);
    expect(trail.filter(({ action }) => /frozen|thawed/.test(action))).toEqual([
      expect.objectContaining({
        action: 'credential.frozen',
        body: JSON.stringify({ reason: 'it leaked' }).replace(':', ': '),
        actor: `api-key:${merchant.apiKeyId}`,
      }),
      expect.objectContaining({ action: 'credential.thawed', body: '{}' }),
    ]);
  });

  test.each(['pending', 'unsafe'])(
    'a credential that is %s stays so: thawing proves nothing',
    async (state) => {
      const merchant = await onboard(service, `merchant-${state}`);
      const path = `/credentials/${merchant.credentialId}`;
      await withAdmin(service, (admin) =>
        admin.query('UPDATE credentials SET state = $1 WHERE merchant_id = $2', [state, merchant.merchantId]),
      );
      for (const what of ['freeze', 'thaw'])
        expect((await merchant.post(`${path}/${what}`, {})).json).toMatchObject({
          code: 'credential.not_usable',
          detail: expect.stringContaining(state),
        });
      expect((await merchant.get(path)).json).toMatchObject({ state });
    },
  );

  test('by an operator, also of a merchant that is suspended', async () => {
    const merchant = await onboard(service, 'merchant-ops');
    const operator = operatorOf(service);
    const base = `/api/ops/merchants/${merchant.merchantId}`;
    await operator.send('PATCH', base, { status: 'suspended' });
    const frozen = await operator.post(`${base}/credentials/${merchant.credentialId}/freeze`, {});
    expect(frozen).toMatchObject({ status: 200, json: { state: 'frozen' } });
    const nobodys = await operator.post(`${base}/credentials/cred_${'z'.repeat(22)}/freeze`, {});
    expect(nobodys).toMatchObject({ status: 404, json: { code: 'credential.not_found' } });
  });
});

describe('a kept answer', () => {
  test('is not given to a key that was revoked, nor for a credential that is frozen', async () => {
    const merchant = await onboard(service, 'merchant-replay');
    const made = (await merchant.post('/api-keys', { name: 'leaked', scopes: ['invoke'] })).json;
    const leaked = new Person(service.url + merchant.prefix, String(made['token']));
    const key = { 'idempotency-key': 'order-0001' };
    const ask = (person: Person) => person.post(`/model/${MODEL}/converse`, converseBody('hi'), key);
    expect((await ask(leaked)).status).toBe(200);
    expect((await ask(leaked)).headers.get('x-bedrock-idempotent-replay')).toBe('true');
    await elsewhere(merchant).send('DELETE', `/api-keys/${String(made['id'])}`);
    const refused = await ask(leaked);
    expect(refused.status).toBe(403);
    expect(refused.text).not.toContain('output');
    expect((await ask(merchant)).headers.get('x-bedrock-idempotent-replay')).toBe('true');
    await elsewhere(merchant).post(`/credentials/${merchant.credentialId}/freeze`, {});
    expect((await ask(merchant)).status).toBe(409);
  });
});

describe('closing a merchant', () => {
  test('is asked for twice, leaves nothing that opens anything, keeps the books, and is for good', async () => {
    await using receiver = await startReceiver();
    const merchant = await onboard(service, 'merchant-closing');
    const { merchantId } = merchant;
    const operator = operatorOf(service);
    const path = `/api/ops/merchants/${merchantId}/close`;
    expect((await merchant.post('/webhooks', { url: `${receiver.url}/in` })).status).toBe(201);
    await merchant.post(`/model/${MODEL}/converse`, converseBody('hi'), { 'idempotency-key': 'order-0002' });
    const place = {
      merchantId: merchantId as MerchantId,
      credentialId: merchant.credentialId as CredentialId,
      version: 1,
    };
    const sealed = await sealedOf(merchantId);
    await using vault = vaultOf();
    // Until then it opens: what follows is about the key that is gone, and not about this test's way of opening.
    await expect(vault.open(place, sealed)).resolves.toMatchObject({ kind: 'access-key' });

    for (const body of [{}, { merchantId: 'merchant-other' }])
      expect((await operator.post(path, body)).json).toMatchObject({ code: 'request.invalid' });
    expect((await merchant.post('/chat', CHAT)).status).toBe(200);

    const closed = await operator.post(path, { merchantId, reason: 'contract ended' });
    expect(closed).toMatchObject({
      status: 200,
      json: {
        status: 'closed',
        closedNow: true,
        ended: { apiKeys: 1, credentials: 1, dataKeys: 1, webhooks: 1, answers: 1 },
      },
    });
    for (const person of [merchant, elsewhere(merchant)])
      expect((await person.post('/chat', CHAT)).status).toBeGreaterThanOrEqual(401);

    // What is left anywhere: no wrapped key, so that KMS and Secrets Manager together hold nothing that can be opened.
    expect(await leftOf(merchantId, sealed.wrappedKey)).toEqual({
      keys: 0,
      wrapped: 0,
      anywhere: [],
      webhooks: 0,
      answers: 0,
    });
    service.standIn.forget();
    const stranger = await otherKeyFor(vault, place);
    await expect(vault.open(place, { ...sealed, wrappedKey: stranger })).rejects.toMatchObject({
      code: expect.stringMatching(/^credential\.unreadable|^vault\.unavailable/),
    });

    expect(
      await operator.send('PATCH', `/api/ops/merchants/${merchantId}`, { status: 'active' }),
    ).toMatchObject({
      status: 409,
      json: { code: 'merchant.closed' },
    });
    expect((await operator.post(path, { merchantId })).json).toMatchObject({ closedNow: false, ended: {} });
    const calls = await withAdmin(service, (admin) =>
      admin.query('SELECT state FROM calls WHERE merchant_id = $1', [merchantId]),
    );
    expect(calls.rows).toEqual([{ state: 'settled' }, { state: 'settled' }]);
    const trail = await actionsOf(merchantId);
    expect(trail.at(-1)).toMatchObject({
      action: 'merchant.closed',
      body: expect.stringContaining('contract ended'),
    });
    expect(trail.filter(({ action }) => action === 'merchant.closed')).toHaveLength(1);
  });

  test('what was under way when it closed adds nothing to it', async () => {
    const { merchantId } = await onboard(service, 'merchant-late');
    await operatorOf(service).post(`/api/ops/merchants/${merchantId}/close`, { merchantId });
    const actor = { subject: 'test', requestId: 'late' };
    const { apiKeys, credentials, webhooks } = service.service.services;
    const late = [
      apiKeys.create(actor, merchantId as MerchantId, { name: 'late', scopes: ['invoke'], expiresInDays: 1 }),
      credentials.store(actor, merchantId as MerchantId, {
        name: 'late',
        region: 'us-east-1',
        makeDefault: true,
        material: {
          kind: 'access-key',
          accessKeyId: AWS.merchantA.accessKeyId,
          secretAccessKey: new Secret(AWS.merchantA.secretAccessKey),
        },
      }),
    ];
    expect(webhooks).toBeDefined();
    for (const work of late) await expect(work).rejects.toMatchObject({ code: 'merchant.closed' });
    await withAdmin(service, async (admin) => {
      const { rows } = await admin.query(
        `SELECT (SELECT count(*)::int FROM api_keys WHERE merchant_id = $1 AND revoked_at IS NULL) AS keys,
           (SELECT count(*)::int FROM credential_versions WHERE merchant_id = $1 AND wrapped_key IS NOT NULL) AS wrapped`,
        [merchantId],
      );
      expect(rows).toEqual([{ keys: 0, wrapped: 0 }]);
    });
  });
});

function vaultOf(): AwsSecretVault & AsyncDisposable {
  const vault = new AwsSecretVault({
    region: 'us-east-1',
    environment: readConfig(service.env).config.deployment,
    kmsKeyId: service.env['VAULT_KMS_KEY_ID'] ?? '',
    endpoints: { kms: service.standIn.url, secretsManager: service.standIn.url },
    serviceCredentials: {
      kind: 'access-key',
      accessKeyId: AWS.service.accessKeyId,
      secretAccessKey: new Secret(AWS.service.secretAccessKey),
    },
  });
  return Object.assign(vault, {
    [Symbol.asyncDispose]: () => {
      vault[Symbol.dispose]();
      return Promise.resolve();
    },
  });
}

/** A data key that KMS makes for the same place: the nearest that whoever has KMS and Secrets Manager can come. */
async function otherKeyFor(
  vault: AwsSecretVault,
  place: Parameters<AwsSecretVault['seal']>[0],
): Promise<Buffer> {
  const { wrappedKey } = await vault.seal(
    place,
    {
      kind: 'access-key',
      accessKeyId: 'AKIAOTHER00000000000',
      secretAccessKey: new Secret('x'.repeat(40)),
    },
    () => Promise.resolve(),
  );
  return wrappedKey;
}

function sealedOf(merchantId: string): Promise<SealedVersion> {
  return withAdmin(service, async (admin) => {
    const { rows } = await admin.query<{
      wrapped_key: Buffer;
      kms_key_arn: string;
      secret_name: string;
      secret_version_id: string;
    }>(
      'SELECT wrapped_key, kms_key_arn, secret_name, secret_version_id FROM credential_versions WHERE merchant_id = $1',
      [merchantId],
    );
    const row = rows[0];
    if (row === undefined) throw new Error('no version');
    return {
      wrappedKey: row.wrapped_key,
      kmsKeyArn: row.kms_key_arn,
      secretName: row.secret_name,
      secretVersionId: row.secret_version_id,
    };
  });
}

/** Every live row, and every table that holds the bytes of the wrapped key. */
function leftOf(merchantId: string, wrappedKey: Buffer): Promise<Record<string, unknown>> {
  return withAdmin(service, async (admin) => {
    const count = async (sql: string) =>
      Number((await admin.query<{ n: string }>(sql, [merchantId])).rows[0]?.n);
    const { rows: tables } = await admin.query<{ name: string }>(
      `SELECT quote_ident(relname) AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`,
    );
    const anywhere: string[] = [];
    for (const { name } of tables) {
      const { rows } = await admin.query(
        `SELECT 1 FROM ${name} AS t WHERE t::text LIKE '%' || $1 || '%' LIMIT 1`,
        [wrappedKey.toString('hex')],
      );
      if (rows.length > 0) anywhere.push(name);
    }
    return {
      keys: await count('SELECT count(*) AS n FROM api_keys WHERE merchant_id = $1 AND revoked_at IS NULL'),
      wrapped: await count(
        'SELECT count(*) AS n FROM credential_versions WHERE merchant_id = $1 AND wrapped_key IS NOT NULL',
      ),
      anywhere,
      webhooks: await count('SELECT count(*) AS n FROM webhooks WHERE merchant_id = $1'),
      answers: await count(
        'SELECT count(*) AS n FROM idempotency_keys WHERE merchant_id = $1 AND answer IS NOT NULL',
      ),
    };
  });
}
