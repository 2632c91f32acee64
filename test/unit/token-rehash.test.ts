import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ApiKeyStore } from '../../src/auth/api-key-store.ts';
import type { Rehashed } from '../../src/auth/api-key-store.ts';
import { ApiKeys, newOperatorKey } from '../../src/auth/api-keys.ts';
import { TokenHasher } from '../../src/auth/token-hash.ts';
import type { Pepper } from '../../src/auth/token-hash.ts';
import { TokenRehash } from '../../src/auth/token-rehash.ts';
import type { TokenRehashParts } from '../../src/auth/token-rehash.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import { onServer } from '../support/postgres.ts';
import type { TestDatabase } from '../support/postgres.ts';

const acme = 'acme' as MerchantId;
const actor = { subject: 'x', requestId: 'r' };
const [V1, V2, V3] = [1, 2, 3].map((version) => ({ version, key: new Secret(randomBytes(32)) })) as [
  Pepper,
  Pepper,
  Pepper,
];

let testDatabase: TestDatabase & AsyncDisposable;
let database: Database;
let store: ApiKeyStore;

beforeAll(async () => {
  testDatabase = await newTestDatabase();
  database = new Database({
    url: new Secret(testDatabase.url),
    connectionsMax: 8,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  store = new ApiKeyStore(database);
  await database.asTenant(acme, (tx) => tx.merchant.create({ data: { id: acme, name: 'x' } }));
});
afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await testDatabase[Symbol.asyncDispose]();
});

/** A replica with these peppers, the first of which hashes. Counts what it asks the store to write. */
function replica(peppers: [Pepper, ...Pepper[]], change: Partial<TokenRehashParts> = {}) {
  const hasher = new TokenHasher(peppers);
  const writes: Promise<boolean>[] = [];
  const counting = (write: Promise<boolean>) => {
    writes.push(write);
    return write;
  };
  const failed: string[] = [];
  const rehash = new TokenRehash({
    store: {
      rehash: (merchantId, id, rehashed) => counting(store.rehash(merchantId, id, rehashed)),
      rehashOperator: (id, rehashed) => counting(store.rehashOperator(id, rehashed)),
    },
    hasher,
    onFailed: (keyId) => failed.push(keyId),
    ...change,
  });
  const clock = { now: () => Date.now() };
  const apiKeys = new ApiKeys({ store, hasher, rehash, clock, environment: 'test' });
  return { apiKeys, rehash, writes, failed, idle: () => rehash[Symbol.asyncDispose]() };
}

const make = ({ apiKeys }: ReturnType<typeof replica>) =>
  apiKeys.create(actor, acme, { name: 'x', scopes: ['invoke'], expiresInDays: 1 });

function newGate() {
  let release: (() => void) | undefined;
  const promise = new Promise<void>((resolve) => (release = resolve));
  return { promise, release: () => release?.() };
}

async function versionOf(id: string): Promise<number | undefined> {
  return (await store.find(id as Parameters<ApiKeyStore['find']>[0]))?.pepperVersion;
}

describe('a token that is used under an older pepper', () => {
  test('is hashed under the one of today, once, and is then good without the older one', async () => {
    const { id, token } = await make(replica([V1]));
    const now = replica([V2, V1]);
    expect(await now.apiKeys.verify(token)).toMatchObject({ apiKeyId: id });
    await now.idle();
    expect(await versionOf(id)).toBe(2);
    await now.apiKeys.verify(token);
    await now.idle();
    expect(now.writes).toHaveLength(1);
    expect(await replica([V2]).apiKeys.verify(token)).toBeDefined();
    expect(await replica([V1]).apiKeys.verify(token)).toBeUndefined();
  });

  test('a replica that only accepts the next pepper takes nothing back', async () => {
    const { id, token } = await make(replica([V2, V1]));
    const behind = replica([V1, V2]);
    expect(await behind.apiKeys.verify(token)).toBeDefined();
    await behind.idle();
    expect(behind.writes).toEqual([]);
    // Nor when it is told to: the database compares as well.
    const { hash } = (await store.find(id)) ?? { hash: new Uint8Array() };
    const back = { before: hash, after: new TokenHasher([V1]).hash(new Secret('x')) };
    expect(await store.rehash(acme, id, back)).toBe(false);
    expect(await versionOf(id)).toBe(2);
  });

  test('of two replicas with different peppers the newer one stays, and the hash that was compared is the one replaced', async () => {
    const { id, token } = await make(replica([V1]));
    const [two, three] = [replica([V2, V1, V3]), replica([V3, V2, V1])];
    await Promise.all([two, three].map(({ apiKeys }) => apiKeys.verify(token)));
    await Promise.all([two.idle(), three.idle()]);
    for (const one of [two, three]) await one.apiKeys.verify(token);
    await Promise.all([two.idle(), three.idle()]);
    expect(await versionOf(id)).toBe(3);
    expect(await three.apiKeys.verify(token)).toBeDefined();
    const stale: Rehashed = {
      before: new Uint8Array(32),
      after: { hash: new Uint8Array(32), pepperVersion: 9 },
    };
    expect(await store.rehash(acme, id, stale)).toBe(false);
    expect(await store.rehash('other' as MerchantId, id, stale)).toBe(false);
  });

  test('an operator’s too', async () => {
    const { token, row } = newOperatorKey(new TokenHasher([V1]), {
      name: 'Jo',
      scopes: ['ops:usage:read'],
      environment: 'test',
      expiresInDays: 1,
      now: Date.now(),
    });
    await onServer(testDatabase.adminUrl, (client) =>
      client.query(
        `INSERT INTO operator_keys (id, name, environment, secret_hash, pepper_version, scopes, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)`,
        [row.id, row.name, row.environment, row.secretHash, row.pepperVersion, row.scopes, row.expiresAt],
      ),
    );
    const now = replica([V2, V1]);
    expect(await now.apiKeys.verify(token)).toMatchObject({ kind: 'operator' });
    await now.idle();
    expect(await replica([V2]).apiKeys.verify(token)).toBeDefined();
  });
});

describe('the request does not wait for it', () => {
  test('when the database takes its time, refuses, or there is no room', async () => {
    const old = replica([V1]);
    const keys = await Promise.all(Array.from({ length: 3 }, () => make(old)));
    const { promise: gate, release } = newGate();
    const asked: string[] = [];
    const stuck = replica([V2, V1], {
      parallel: 2,
      store: {
        rehash: async (_merchantId, id) => {
          asked.push(id);
          await gate;
          throw new Error('away');
        },
        rehashOperator: () => Promise.resolve(true),
      },
    });
    for (const { token } of [...keys, ...keys]) expect(await stuck.apiKeys.verify(token)).toBeDefined();
    expect(asked).toEqual(keys.slice(0, 2).map(({ id }) => id));
    release();
    await stuck.idle();
    expect(stuck.failed).toEqual(asked);
    expect(await versionOf(keys[0]?.id ?? '')).toBe(1);
  });

  test('a token that is refused is not hashed anew', async () => {
    const { id, token } = await make(replica([V1]));
    await store.revoke(actor, acme, id);
    const now = replica([V2, V1]);
    expect(await now.apiKeys.verify(token)).toBeUndefined();
    await now.idle();
    expect(now.writes).toEqual([]);
  });
});
