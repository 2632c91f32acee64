import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { ApiKeys } from '../../src/auth/api-keys.ts';
import { ApiKeyStore } from '../../src/auth/api-key-store.ts';
import { TokenHasher } from '../../src/auth/token-hash.ts';
import type { ApiKeyId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import { onServer } from '../support/postgres.ts';

const acme = 'acme' as MerchantId;
const other = 'other' as MerchantId;
const actor = { subject: 'api-key:maker', requestId: 'r1' };
const pepper = new Secret(randomBytes(32));
const hasher = new TokenHasher([{ version: 1, key: pepper }]);

let file: Awaited<ReturnType<typeof newTestDatabase>>;
let database: Database;
let store: ApiKeyStore;
let apiKeys: ApiKeys;

beforeAll(async () => {
  file = await newTestDatabase();
  await onServer(file.adminUrl, (client) =>
    client.query(`INSERT INTO merchants (id, name) VALUES ('acme', 'Acme'), ('other', 'Other')`),
  );
  database = new Database({
    url: new Secret(file.url),
    connectionsMax: 10,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  store = new ApiKeyStore(database);
  apiKeys = new ApiKeys({ store, hasher, clock: { now: () => Date.now() }, environment: 'test' });
});
afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await file[Symbol.asyncDispose]();
});

const make = (merchantId = acme, name = 'ci') =>
  apiKeys.create(actor, merchantId, { name, scopes: ['invoke', 'usage:read'], expiresInDays: 90 });

/** Rows as an administrator sees them, with row security out of the way. */
async function select<Row>(sql: string, ...values: unknown[]): Promise<Row[]> {
  return onServer(file.adminUrl, async (client) => (await client.query(sql, values)).rows as Row[]);
}
const auditOf = (id: string) =>
  select<{ merchant_id: string; action: string; actor: string; outcome: string }>(
    'SELECT merchant_id, action, actor, outcome FROM audit_events WHERE resource = $1 ORDER BY seq',
    `api-key/${id}`,
  );
const recorded = (...actions: string[]) =>
  actions.map((action) => ({ merchant_id: 'acme', action, actor: 'api-key:maker', outcome: 'allowed' }));

describe('insert', () => {
  test('a key that was made is found and is its merchant; the record of it was written with it', async () => {
    const { id, token } = await make();
    expect(await apiKeys.verify(token)).toMatchObject({
      merchantId: 'acme',
      scopes: ['invoke', 'usage:read'],
    });
    expect(await auditOf(id)).toEqual(recorded('token.created'));
  });

  test('no part of the token is in the database, in any column of any table', async () => {
    const { token } = await make();
    const secret = token.slice(-49, -6);
    const tables = await select<{ name: string }>(
      `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
    );
    expect(tables.map(({ name }) => name)).toContain('audit_events');
    for (const { name } of tables) {
      const [row] = await select<{ hits: string }>(
        `SELECT count(*) AS hits FROM "${name}" AS t WHERE t::text LIKE '%' || $1 || '%' OR t::text LIKE '%' || $2 || '%'`,
        secret,
        Buffer.from(secret).toString('hex'),
      );
      expect({ name, hits: row?.hits }).toEqual({ name, hits: '0' });
    }
  });

  test('key and record are written both or not at all, whichever fails', async () => {
    const { id } = await make();
    const [before] = await select<{ count: string }>('SELECT count(*) FROM audit_events');
    const twice = {
      id,
      name: 'x',
      environment: 'test',
      scopes: [],
      expiresAt: new Date(),
      ...hasher.hash(new Secret('x')),
    };
    await expect(store.insertAlone(acme, actor, twice)).rejects.toThrow();
    expect(await select('SELECT count(*) FROM audit_events')).toEqual([before]);

    const later = new Error('a later step of the same transaction');
    let made = '';
    await expect(
      database.asTenant(acme, async (tx) => {
        const request = { name: 'x', scopes: ['invoke'] as const, expiresInDays: 1 };
        made = (await apiKeys.create(actor, acme, request, tx)).id;
        throw later;
      }),
    ).rejects.toBeDefined();
    expect(await store.find(made as ApiKeyId)).toBeUndefined();
    expect(await auditOf(made)).toEqual([]);
  });

  test('a key cannot be written for another merchant than the transaction is of', async () => {
    const key = { ...(await make()), environment: 'test', ...hasher.hash(new Secret('x')) };
    const row = { ...key, id: 'AAAAAAAAAAAA' as ApiKeyId, expiresAt: new Date() };
    await expect(database.asTenant(other, (tx) => store.insert(tx, acme, actor, row))).rejects.toBeDefined();
    expect(await store.find(row.id)).toBeUndefined();
    expect(await auditOf(row.id)).toEqual([]);
  });
});

describe('list', () => {
  test('one merchant’s keys, oldest first, and nothing that verifies', async () => {
    const mine = [await make(other, 'first'), await make(other, 'second')];
    await make(acme);
    await store.revoke(actor, other, mine[0]?.id as ApiKeyId);
    const listed = await store.list(other);
    expect(listed.map(({ id }) => id)).toEqual(mine.map(({ id }) => id));
    expect(Object.keys(listed[0] ?? {}).sort()).toEqual(
      [
        'createdAt',
        'createdBy',
        'environment',
        'expiresAt',
        'id',
        'name',
        'revokedAt',
        'rolledTo',
        'scopes',
      ].sort(),
    );
    expect(listed[0]?.revokedAt).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
    expect(listed[1]).toMatchObject({ name: 'second', createdBy: 'api-key:maker', revokedAt: null });
  });
});

describe('revoke', () => {
  test('ends the key at once; a second time changes nothing and is not recorded', async () => {
    const { id, token } = await make();
    expect(await store.revoke(actor, acme, id)).toBe(true);
    expect(await apiKeys.verify(token)).toBeUndefined();
    const [first] = (await store.list(acme)).filter((key) => key.id === id);
    expect(await store.revoke(actor, acme, id)).toBe(true);
    expect((await store.list(acme)).filter((key) => key.id === id)).toEqual([first]);
    expect(await auditOf(id)).toEqual(recorded('token.created', 'token.revoked'));
  });

  test('of many at the same time all succeed and one is recorded', async () => {
    for (let round = 0; round < 5; round += 1) {
      const { id } = await make();
      const revocations = Array.from({ length: 8 }, () => store.revoke(actor, acme, id));
      expect(await Promise.all(revocations)).toEqual(Array(8).fill(true));
      expect(await auditOf(id)).toEqual(recorded('token.created', 'token.revoked'));
    }
  });

  test('another merchant’s key is not there, and stays what it was', async () => {
    const { id, token } = await make(acme);
    expect(await store.revoke(actor, other, id)).toBe(false);
    expect(await store.revoke(actor, acme, 'AAAAAAAAAAA0' as ApiKeyId)).toBe(false);
    expect(await apiKeys.verify(token)).toBeDefined();
    expect(await auditOf(id)).toEqual(recorded('token.created'));
  });
});

describe('operators', () => {
  test('the script’s key is found by the finder of operators and by no other; the service cannot make one', async () => {
    const made = await createOperatorKey({
      adminUrl: file.adminUrl,
      pepper,
      name: 'Jo',
      scopes: ['ops:usage:read'],
      environment: 'test',
      expiresInDays: 30,
    });
    expect(await apiKeys.verify(made.token)).toEqual({
      kind: 'operator',
      subject: `operator:${made.id}`,
      keyId: made.id,
      scopes: ['ops:usage:read'],
    });
    expect(await store.find(made.id as ApiKeyId)).toBeUndefined();
    const merchants = await make();
    expect(await store.findOperator(merchants.id)).toBeUndefined();
    await onServer(file.url, async (client) => {
      for (const statement of [
        `INSERT INTO operator_keys SELECT * FROM operator_keys`,
        `UPDATE operator_keys SET scopes = '{}'`,
        `DELETE FROM operator_keys`,
        `UPDATE api_keys SET scopes = '{}'`,
        `UPDATE api_keys SET expires_at = now() + interval '9 years'`,
        `UPDATE api_keys SET secret_hash = ''`,
        `DELETE FROM api_keys`,
      ])
        await expect(client.query(statement)).rejects.toThrow(/permission denied/);
    });
  });
});
