import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { GetPublicKeyCommand, KMSClient } from '@aws-sdk/client-kms';
import pg from 'pg';
import { CheckpointBucket } from '../../src/audit/checkpoint-bucket-aws.ts';
import { CheckpointSigner } from '../../src/audit/checkpoint-signer-aws.ts';
import { CheckpointStore } from '../../src/audit/checkpoint-store.ts';
import type { StoredCheckpoint } from '../../src/audit/checkpoint-store.ts';
import { checkProven, checkSigned, parseBody, toPem } from '../../src/audit/checkpoint.ts';
import type { ProvenCheckpoint } from '../../src/audit/checkpoint.ts';
import { Checkpointer } from '../../src/audit/checkpointer.ts';
import type { CheckpointerParts } from '../../src/audit/checkpointer.ts';
import { leafHash, rootOf, saltOf } from '../../src/audit/merkle.ts';
import { sdkOptions } from '../../src/credentials/sdk-options-aws.ts';
import { monotonicClock } from '../../src/domain/clock.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { newLogger } from '../../src/observability/logger.ts';
import { Database } from '../../src/persistence/database.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { AWS } from '../support/aws-keys.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { auditSettings, registerServiceAccount } from '../support/service-environment.ts';

const READING = {
  actor: 'x',
  action: 'audit.read',
  resource: 'x',
  outcome: 'allowed',
  requestId: 'x',
} as const;
const HOUR = 3_600_000;

let standIn: StandIn;
let keyId: string;
let key: ReturnType<typeof createPublicKey>;

let testDatabase: TestDatabase & AsyncDisposable;
let database: Database;
let admin: pg.Client;
let store: CheckpointStore;
let logLines: string[];

beforeAll(async () => {
  standIn = await startStandIn();
  registerServiceAccount(standIn);
  keyId = auditSettings(standIn).AUDIT_KMS_KEY_ID;
  const kms = new KMSClient(sdk());
  const { PublicKey } = await kms.send(new GetPublicKeyCommand({ KeyId: keyId }));
  key = createPublicKey({ key: Buffer.from(PublicKey ?? []), format: 'der', type: 'spki' });
  kms.destroy();
  testDatabase = await newTestDatabase();
  database = new Database({
    url: new Secret(testDatabase.url),
    connectionsMax: 10,
    statementTimeoutMs: 10_000,
    onPoolError: () => undefined,
  });
  admin = new pg.Client({ connectionString: testDatabase.adminUrl });
  await admin.connect();
  store = new CheckpointStore(database);
});
afterAll(async () => {
  await admin.end();
  await database[Symbol.asyncDispose]();
  await testDatabase[Symbol.asyncDispose]();
  await standIn.close();
});
beforeEach(async () => {
  standIn.forget();
  auditSettings(standIn);
  logLines = [];
  await admin.query(`SET session_replication_role = replica;
    TRUNCATE audit_checkpoints, audit_leaves, audit_trees, audit_events, audit_heads;
    SET session_replication_role = origin`);
});

function sdk() {
  const { accessKeyId, secretAccessKey } = AWS.service;
  const signer = { kind: 'access-key', accessKeyId, secretAccessKey: new Secret(secretAccessKey) } as const;
  const target = { region: 'us-east-1', endpoint: standIn.url, maxAttempts: 1, requestTimeoutMs: 5_000 };
  return sdkOptions({ ...target, reach: 'anywhere' }, signer);
}

/** A replica's. Everything is due at once, and a lease lasts for the test, unless said. */
function newCheckpointer(parts: Partial<CheckpointerParts> = {}): Checkpointer {
  return new Checkpointer({
    store,
    signer: new CheckpointSigner({ sdk: sdk(), keyId }),
    bucket: newBucket(),
    logger: newLogger('info', { write: (line: string) => void logLines.push(line) }),
    origin: 'test',
    everyMs: 0,
    events: 1,
    leaseMs: HOUR,
    clock: monotonicClock,
    ...parts,
  });
}

function newBucket(): CheckpointBucket {
  return new CheckpointBucket({
    sdk: sdk(),
    bucket: 'audit-checkpoints',
    owner: AWS.service.accountId,
    deployment: 'test',
    retainDays: 400,
  });
}

/** The store, to put one's own into it. */
function bound(target: CheckpointStore): CheckpointerParts['store'] {
  return {
    begin: (due) => target.begin(due),
    sign: (number, signed) => target.sign(number, signed),
    take: (limit, leaseMs) => target.take(limit, leaseMs),
    copied: (number) => target.copied(number),
    waiting: () => target.waiting(),
  };
}

/** Events on chains, one statement each. */
async function happen(...chains: string[]): Promise<void> {
  for (const chain of chains)
    await admin.query(`SELECT audit_append($1, 'x', 'call.admitted', 'call/x', 'allowed', 'r', '{}')`, [
      chain,
    ]);
}

/** What a merchant is told, without the record of its reading. */
async function provenFor(chain: string): Promise<ProvenCheckpoint | undefined> {
  return (await store.read(chain as MerchantId, READING)).checkpoint;
}

const bodyOf = (checkpoint: { body: string } | undefined) => parseBody(checkpoint?.body ?? '');
const signedOnes = () => store.page(0, 1_000);
const signedPart = ({ number: _number, blind: _blind, ...signed }: StoredCheckpoint) => signed;
const signs = () => standIn.journal.filter(({ operation }) => operation === 'Sign');
const told = (text: string) => logLines.filter((line) => line.includes(text));

describe('a checkpoint', () => {
  test('covers the heads of all chains: signed by KMS, chained, copied under a lock, and it says so', async () => {
    await happen('~system', 'merchant-a', 'merchant-a', 'merchant-b');
    await newCheckpointer().round();
    await happen('merchant-b');
    await newCheckpointer().round();
    const [first, second] = await signedOnes();
    expect([first?.number, second?.number]).toEqual([1, 2]);
    expect(bodyOf(first)).toMatchObject({ origin: 'test', number: 1, chains: 3, previous: '00'.repeat(32) });
    expect(bodyOf(second)).toMatchObject({
      number: 2,
      chains: 3,
      previous: createHash('sha256')
        .update(first?.body ?? '')
        .digest('hex'),
    });
    for (const one of (await signedOnes()).map(signedPart)) {
      expect(checkSigned(one, [key]).problem).toBeUndefined();
      expect(one).toMatchObject({ keyId, publicKey: toPem(key) });
    }
    const copies = standIn.lockedObjects('audit-checkpoints');
    expect(copies.map((copy) => copy.key)).toEqual([
      'audit/test/000000000001.json',
      'audit/test/000000000002.json',
    ]);
    for (const [index, { mode, retainUntil, body }] of copies.entries()) {
      expect(mode).toBe('COMPLIANCE');
      expect(Date.parse(retainUntil) - Date.now()).toBeGreaterThan(399 * 24 * HOUR);
      expect(JSON.parse(body)).toMatchObject({ body: [first, second][index]?.body });
    }
  });

  test('is the tree of RFC 9162 over salted leaves, and proves each chain to itself, whatever the number of chains', async () => {
    for (let size = 1; size <= 9; size += 1) {
      const chains = Array.from({ length: size }, (_, index) => `merchant-${String(index)}`);
      await happen(`merchant-${String(size - 1)}`);
      await newCheckpointer({ bucket: undefined as never }).round();
      const newest = (await signedOnes()).at(-1);
      const proofs = await Promise.all(chains.map(provenFor));
      const leaves = proofs.map((proof) =>
        leafHash(proof?.leaf ?? { merchantId: '', seq: 0, hash: '', salt: '' }),
      );
      expect(rootOf(leaves)?.toString('hex')).toBe(bodyOf(newest)?.root);
      for (const [index, proof] of proofs.entries()) {
        if (proof === undefined || newest === undefined) throw new Error('no proof');
        expect(checkProven(proof, [key]).problem).toBeUndefined();
        expect(proof.leaf.salt).toBe(saltOf(newest.blind, chains[index] ?? ''));
      }
    }
  });

  test('proves no other chain, and names none', async () => {
    await happen('merchant-a', 'merchant-b', 'merchant-c');
    await newCheckpointer().round();
    const before = await provenFor('merchant-a');
    const other = await provenFor('merchant-b');
    if (before === undefined || other === undefined) throw new Error('no proof');
    for (const leaf of [
      { ...before.leaf, merchantId: 'merchant-b' },
      { ...other.leaf, index: before.leaf.index },
      { ...other.leaf, path: before.leaf.path },
      { ...before.leaf, seq: before.leaf.seq + 1 },
      { ...before.leaf, salt: other.leaf.salt },
      { ...before.leaf, index: before.leaf.index + 1 },
      { ...before.leaf, path: [...before.leaf.path, '00'.repeat(32)] },
      { ...before.leaf, path: before.leaf.path.slice(1) },
    ])
      expect(checkProven({ ...before, leaf }, [key]).problem).toBe('its proof does not lead to its root');
    const shown = JSON.stringify(before);
    for (const secret of ['merchant-b', 'merchant-c', other.leaf.hash, other.leaf.salt])
      expect(shown).not.toContain(secret);
    expect(await provenFor('merchant-new')).toBeUndefined();
  });

  test('shows a neighbour that did nothing as another one each time', async () => {
    await happen('merchant-a', 'merchant-b');
    await newCheckpointer().round();
    const before = await provenFor('merchant-a');
    // That reading was the only event since.
    await newCheckpointer().round();
    const after = await provenFor('merchant-a');
    expect([before?.leaf.path.length, after?.leaf.path.length]).toEqual([1, 1]);
    expect(after?.leaf.path).not.toEqual(before?.leaf.path);
  });

  test('is believed only when signed by the key one knows', async () => {
    await happen('merchant-a');
    await newCheckpointer().round();
    const proof = await provenFor('merchant-a');
    if (proof === undefined) throw new Error('no proof');
    const stranger = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    const problem = (change: Partial<ProvenCheckpoint>, keys = [key]) =>
      checkProven({ ...proof, ...change }, keys).problem;
    expect(problem({})).toBeUndefined();
    expect(problem({}, [stranger.publicKey])).toBe('it names another public key');
    expect(problem({ publicKey: toPem(stranger.publicKey) }, [stranger.publicKey])).toBe(
      'its signature does not fit',
    );
    expect(problem({ keyId: `${keyId}0` })).toBe('its signature does not fit');
    expect(problem({ body: proof.body.replace('"origin":"test"', '"origin":"main"') })).toBe(
      'its signature does not fit',
    );
    expect(problem({ body: ` ${proof.body}` })).toBe('it has not the form of a checkpoint');
  });

  test('is made when it is old enough or far enough behind, and never of nothing', async () => {
    const every = (everyMs: number, events: number) => newCheckpointer({ everyMs, events }).round();
    await every(0, 1);
    expect(await signedOnes()).toHaveLength(0);
    await happen('merchant-a');
    await every(HOUR, 1_000);
    expect(await signedOnes()).toHaveLength(1);
    await happen('merchant-a', 'merchant-b');
    await every(HOUR, 3);
    expect(await signedOnes()).toHaveLength(1);
    await happen('merchant-a');
    await every(HOUR, 3);
    expect(await signedOnes()).toHaveLength(2);
    await every(0, 1);
    expect(await signedOnes()).toHaveLength(2);
    await happen('merchant-a');
    await every(0, 1_000);
    expect(await signedOnes()).toHaveLength(3);
    // Only chains that changed are written down again.
    const { rows } = await admin.query(
      'SELECT merchant_id, number::int, seq::int FROM audit_leaves ORDER BY 2, 1',
    );
    expect(rows).toEqual([
      { merchant_id: 'merchant-a', number: 1, seq: 1 },
      { merchant_id: 'merchant-a', number: 2, seq: 3 },
      { merchant_id: 'merchant-b', number: 2, seq: 1 },
      { merchant_id: 'merchant-a', number: 3, seq: 4 },
    ]);
  });

  test('cannot be changed or removed, not even by an owner by accident; the service cannot write one', async () => {
    await happen('merchant-a');
    await newCheckpointer().round();
    for (const sql of [
      `UPDATE audit_checkpoints SET root = sha256('x')`,
      `UPDATE audit_checkpoints SET signature = 'x'`,
      `UPDATE audit_checkpoints SET body = 'x'`,
      `UPDATE audit_checkpoints SET copied_at = NULL`,
      'DELETE FROM audit_checkpoints',
      'TRUNCATE audit_checkpoints',
      'UPDATE audit_leaves SET seq = 7',
      'DELETE FROM audit_leaves',
      'TRUNCATE audit_leaves',
    ])
      await expect(admin.query(sql)).rejects.toThrow(/append-only/);
    const login = new pg.Client({ connectionString: testDatabase.url });
    await login.connect();
    for (const sql of [
      `INSERT INTO audit_leaves VALUES ('merchant-a', 9, 9, sha256('x'))`,
      `UPDATE audit_checkpoints SET key_id = 'x'`,
      'DELETE FROM audit_checkpoints',
      'SELECT * FROM audit_trees',
      `SELECT audit_tree_write(9, sha256('x'))`,
    ])
      await expect(login.query(sql)).rejects.toMatchObject({ code: '42501' });
    await login.end();
  });
});

describe('many replicas', () => {
  test('make one, while calls go on', async () => {
    await happen('merchant-a', 'merchant-b');
    const replicas = Array.from({ length: 8 }, () => newCheckpointer({ everyMs: HOUR, events: 1_000_000 }));
    await Promise.all([...replicas.map((one) => one.round()), happen('merchant-a', 'merchant-c')]);
    expect(await signedOnes()).toHaveLength(1);
    expect(signs()).toHaveLength(1);
    expect(
      standIn.lockedObjects('audit-checkpoints').filter(({ body }) => body.includes('"number\\":1,')),
    ).not.toEqual([]);
    const proof = await provenFor('merchant-a');
    expect(proof && checkProven(proof, [key]).problem).toBeUndefined();
  });

  test('that sign the same one keep the first signature', async () => {
    await happen('merchant-a');
    const due = await store.begin({ origin: 'test', everyMs: 0, events: 1, leaseMs: 0 });
    const again = await store.begin({ origin: 'test', everyMs: 0, events: 1, leaseMs: 0 });
    expect(again).toEqual(due);
    const signer = new CheckpointSigner({ sdk: sdk(), keyId });
    const [one, two] = [await signer.sign(due?.body ?? ''), await signer.sign(due?.body ?? '')];
    expect(one.signature).not.toBe(two.signature);
    expect([await store.sign(1, one), await store.sign(1, two)]).toEqual([true, false]);
    expect((await signedOnes())[0]?.signature).toBe(one.signature);
  });
});

describe('a process that dies', () => {
  const dies = () => Promise.reject(new Error('killed here'));
  const real = () => store;
  const steps: [string, () => Partial<CheckpointerParts>][] = [
    ['before anything is made', () => ({ store: { ...bound(real()), begin: dies } })],
    ['before it is signed', () => ({ signer: { sign: dies } })],
    ['before the signature is kept', () => ({ store: { ...bound(real()), sign: dies } })],
    ['before copies are taken', () => ({ store: { ...bound(real()), take: dies } })],
    ['before it is copied', () => ({ bucket: { put: dies } })],
    ['before the copy is noted', () => ({ store: { ...bound(real()), copied: dies } })],
  ];

  test.each(steps)('%s leaves nothing half-done', async (_name, parts) => {
    await happen('merchant-a', 'merchant-b');
    // No lease outlives it here: in life it ends after half a minute.
    await newCheckpointer({ leaseMs: 0, ...parts() })
      .round()
      .catch(() => undefined);
    await happen('merchant-b');
    await newCheckpointer({ leaseMs: 0 }).round();
    const all = await signedOnes();
    expect(all.map(({ number }) => number)).toEqual(all.map((_, index) => index + 1));
    const proof = await provenFor('merchant-b');
    expect(proof?.leaf.seq).toBe(2);
    expect(proof && checkProven(proof, [key]).problem).toBeUndefined();
    const copied = new Set(standIn.lockedObjects('audit-checkpoints').map((copy) => copy.key));
    expect(copied.size).toBe(all.length);
  });

  test('holds it for the length of its lease, and no longer', async () => {
    await happen('merchant-a');
    expect(await store.begin({ origin: 'test', everyMs: 0, events: 1, leaseMs: HOUR })).toMatchObject({
      number: 1,
    });
    expect(await store.begin({ origin: 'test', everyMs: 0, events: 1, leaseMs: HOUR })).toBeUndefined();
    await admin.query(`UPDATE audit_checkpoints SET sign_after = now()`);
    expect(await store.begin({ origin: 'test', everyMs: 0, events: 1, leaseMs: HOUR })).toMatchObject({
      number: 1,
    });
  });
});

describe('while something is down', () => {
  test('KMS: one checkpoint waits, is told of after five minutes, and the next one covers all that came meanwhile', async () => {
    const fault = standIn.fault({
      service: 'kms',
      status: 500,
      type: 'KMSInternalException',
      times: 'always',
    });
    await happen('merchant-a');
    const one = newCheckpointer({ leaseMs: 0 });
    await one.round();
    await happen('merchant-a', 'merchant-b');
    await one.round();
    expect(await signedOnes()).toHaveLength(0);
    expect(told('audit checkpoint not signed').length).toBeGreaterThanOrEqual(2);
    expect(told('are late')).toEqual([]);
    // As if five minutes had passed.
    await newCheckpointer({ leaseMs: 0, lateMs: 1 }).round();
    expect(told('KMS does not sign')).toHaveLength(1);
    expect(told('"level":50')).toHaveLength(1);
    fault.remove();
    await one.round();
    expect((await signedOnes()).map((stored) => bodyOf(stored)?.chains)).toEqual([1, 2]);
    expect((await provenFor('merchant-a'))?.leaf.seq).toBe(2);
  });

  test('S3: checkpoints are made all the same, copies wait, are told of, and all go out in the end', async () => {
    const fault = standIn.fault({ service: 's3', status: 503, type: 'SlowDown', times: 'always' });
    const one = newCheckpointer({ leaseMs: 0 });
    for (let round = 0; round < 3; round += 1) {
      await happen('merchant-a');
      await one.round();
    }
    expect(await signedOnes()).toHaveLength(3);
    expect(standIn.lockedObjects('audit-checkpoints')).toEqual([]);
    expect(told('audit checkpoint not copied')).toHaveLength(3);
    expect(told('are late')).toEqual([]);
    await newCheckpointer({ leaseMs: 0, lateMs: 1 }).round();
    expect(told('S3 does not take copies')).toHaveLength(1);
    fault.remove();
    await one.round();
    expect(standIn.lockedObjects('audit-checkpoints').map((copy) => copy.key)).toEqual(
      [1, 2, 3].map((number) => `audit/test/00000000000${String(number)}.json`),
    );
  });

  test('S3: a copy that was made and not noted is not made twice', async () => {
    await happen('merchant-a');
    await newCheckpointer().round();
    const [one] = await signedOnes();
    if (one === undefined) throw new Error('no checkpoint');
    expect(await newBucket().put(1, signedPart(one))).toBe('kept');
    expect(standIn.lockedObjects('audit-checkpoints')).toHaveLength(1);
  });

  test('a bucket of somebody else gets nothing', async () => {
    standIn.addLockedBucket({ bucket: 'audit-checkpoints', accountId: '123456789012', region: 'us-east-1' });
    await happen('merchant-a');
    await newCheckpointer().round();
    expect(standIn.lockedObjects('audit-checkpoints')).toEqual([]);
    expect(told('not copied')).toHaveLength(1);
  });

  test('a key that cannot sign, or signs wrongly, gives no checkpoint', async () => {
    await happen('merchant-a');
    const vaultKey = new CheckpointSigner({ sdk: sdk(), keyId: 'alias/vault' });
    await newCheckpointer({ signer: vaultKey, leaseMs: 0 }).round();
    expect(told('not signed')).toHaveLength(1);
    expect(await signedOnes()).toHaveLength(0);
  });
});

describe('a history that begins again', () => {
  const forget = () =>
    admin.query(`SET session_replication_role = replica;
      TRUNCATE audit_checkpoints, audit_leaves, audit_trees;
      SET session_replication_role = origin`);

  test('takes no number from the one before: its copies stand beside, told of as errors, and the next ones go on', async () => {
    await happen('merchant-a');
    await newCheckpointer().round();
    const [before] = standIn.lockedObjects('audit-checkpoints');
    await forget();
    await newCheckpointer().round();
    await happen('merchant-a');
    await newCheckpointer().round();
    const copies = standIn.lockedObjects('audit-checkpoints');
    const again = (await signedOnes())[0]?.body ?? '';
    const beside = createHash('sha256').update(again).digest('hex').slice(0, 16);
    expect(copies.map(({ key: at }) => at)).toEqual([
      'audit/test/000000000001.json',
      `audit/test/000000000001-${beside}.json`,
      'audit/test/000000000002.json',
    ]);
    expect(copies[0]).toEqual(before);
    expect(JSON.parse(copies[1]?.body ?? '')).toMatchObject({ body: again });
    expect(told('number was used before')).toHaveLength(1);
    expect(told('"level":50')).toHaveLength(1);
    const { rows } = await admin.query('SELECT number FROM audit_checkpoints WHERE copied_at IS NULL');
    expect(rows).toEqual([]);
  });
});

describe('copies that have piled up', () => {
  async function pile(count: number): Promise<void> {
    for (let made = 0; made < count; made += 1) {
      await happen('merchant-a');
      await newCheckpointer({ bucket: undefined as never }).round();
    }
  }

  test('go out twenty a round: checkpoints are made meanwhile', async () => {
    await pile(21);
    await newCheckpointer().round();
    expect(standIn.lockedObjects('audit-checkpoints')).toHaveLength(20);
    await newCheckpointer().round();
    expect(standIn.lockedObjects('audit-checkpoints')).toHaveLength(21);
  });

  test('go out for some seconds a round', async () => {
    await pile(3);
    let now = 0;
    const slow: CheckpointerParts['bucket'] = {
      put: () => {
        now += 6_000;
        return Promise.resolve('kept');
      },
    };
    await newCheckpointer({ bucket: slow, clock: { now: () => now } }).round();
    expect(now).toBe(12_000);
  });

  test('do not hold a process that ends', async () => {
    await pile(3);
    let puts = 0;
    const one: Checkpointer = newCheckpointer({
      bucket: {
        put: () => {
          puts += 1;
          ended ??= one[Symbol.asyncDispose]();
          return Promise.resolve('kept');
        },
      },
    });
    let ended: PromiseLike<void> | undefined;
    await one.round();
    await ended;
    expect(puts).toBe(1);
  });
});

describe('while none is made though there is something new', () => {
  const late = (log: string) => told(log).length;

  test('because the clock of the database went back, it is told by the clock of the process', async () => {
    await happen('merchant-a');
    await newCheckpointer().round();
    await admin.query(`SET session_replication_role = replica;
      UPDATE audit_checkpoints SET at = at + interval '1 day'; SET session_replication_role = origin`);
    let now = 0;
    const one = newCheckpointer({
      everyMs: 60_000,
      events: 1_000,
      lateMs: 1_000,
      clock: { now: () => now },
    });
    await one.round();
    now = HOUR;
    // Nothing new: there is nothing to wait for.
    await one.round();
    await happen('merchant-a');
    await one.round();
    now += 60_999;
    await one.round();
    expect(late('none is made')).toBe(0);
    now += 1;
    await one.round();
    expect(late('none is made')).toBe(1);
    await newCheckpointer({ everyMs: 0 }).round();
    await admin.query(`SET session_replication_role = replica;
      UPDATE audit_checkpoints SET at = now() - interval '1 day'; SET session_replication_role = origin`);
    await one.round();
    expect(await signedOnes()).toHaveLength(2);
    expect(late('none is made')).toBe(1);
  });

  test('because making one fails, it is told', async () => {
    await happen('merchant-a');
    let now = 0;
    const one = newCheckpointer({
      store: { ...bound(store), begin: () => Promise.reject(new Error('for good')) },
      clock: { now: () => now },
      lateMs: 1_000,
    });
    await expect(one.round()).rejects.toThrow('for good');
    now = 1_000;
    await expect(one.round()).rejects.toThrow('for good');
    expect(late('none is made')).toBe(1);
  });
});

test.each([
  ['with its leaves', `DELETE FROM audit_leaves WHERE merchant_id = 'merchant-b';`],
  ['without its leaves', ''],
])('a chain that is gone %s is an alarm, even when another came meanwhile', async (_name, sql) => {
  await happen('merchant-a', 'merchant-b');
  await newCheckpointer().round();
  await admin.query(`SET session_replication_role = replica; ${sql}
    DELETE FROM audit_heads WHERE merchant_id = 'merchant-b'; SET session_replication_role = origin`);
  await happen('merchant-a', 'merchant-c');
  await newCheckpointer().round();
  expect(told('somebody rewrote the database')).toHaveLength(1);
  expect(told('"chains":1')).toHaveLength(1);
  await happen('merchant-d');
  await newCheckpointer().round();
  expect(told('somebody rewrote the database')).toHaveLength(1);
});

test('a chain that is behind its last checkpoint is an alarm', async () => {
  await happen('merchant-a', 'merchant-a', 'merchant-b');
  await newCheckpointer().round();
  await admin.query(`UPDATE audit_heads SET seq = 1 WHERE merchant_id = 'merchant-a'`);
  await newCheckpointer().round();
  expect(told('somebody rewrote the database')).toHaveLength(1);
  expect(told('"chains":1')).toHaveLength(1);
});
