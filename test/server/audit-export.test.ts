import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import type { AuditEvent } from '../../src/audit/audit.ts';
import { AuditStore } from '../../src/audit/audit-store.ts';
import { CheckpointStore } from '../../src/audit/checkpoint-store.ts';
import { readPublicKey } from '../../src/audit/checkpoint.ts';
import type { ProvenCheckpoint } from '../../src/audit/checkpoint.ts';
import { hashOf } from '../../src/audit/verify.ts';
import { ExportVerifier } from '../../src/audit/verify-export.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { ROUTES } from '../../src/http/routes.ts';
import type { Route } from '../../src/http/route.ts';
import { MerchantStore } from '../../src/merchants/merchant-store.ts';
import { Database } from '../../src/persistence/database.ts';
import type { Tx } from '../../src/persistence/database.ts';
import { verifyChain, verifyDatabase } from '../../scripts/cli/verify-chains.ts';
import { AWS } from '../support/aws-keys.ts';
import { setPlan } from '../support/limits.ts';
import { startReceiver } from '../support/receiver.ts';
import { converseBody, directFields, directHeaders, onboard, operatorOf, Person } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { auditSettings } from '../support/service-environment.ts';
import { entryOf } from '../support/transpiled.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { takeOver } from '../support/take-over.ts';
import { until } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const ROLE = `arn:aws:iam::${AWS.merchantA.accountId}:role/audited`;
/** Of the account of the merchant's credentials, so that a rotation to it is refused for nothing else. */
const { accessKeyId, secretAccessKey } = AWS.merchantA;
const MATERIAL = { kind: 'access-key', awsAccessKeyId: accessKeyId, awsSecretAccessKey: secretAccessKey };

let service: TestService;
let merchant: MerchantPerson;
let admin: pg.Client;
let folder: string;
let makeCheckpoint: () => Promise<void>;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'audit-export-'));
  service = await startTestService((standIn) =>
    // Everything is due at once, and the tests say when it is looked at.
    auditSettings(standIn, { AUDIT_CHECKPOINT_EVERY_MS: '0' }),
  );
  // A round of the service's own may have begun before what a test has just done.
  makeCheckpoint = takeOver(service.service, 'checkpoint');
  merchant = await onboard(service, 'merchant-a');
  await onboard(service, 'merchant-b');
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

async function checkpoint(): Promise<ProvenCheckpoint> {
  await makeCheckpoint();
  const answer = await merchant.get('/audit/checkpoint');
  expect(answer.status).toBe(200);
  return answer.json as unknown as ProvenCheckpoint;
}

const linesOf = ({ text }: Answer) => text.trimEnd().split('\n');

function faultOf(lines: readonly string[], publicKey: string, kept: ProvenCheckpoint[] = []) {
  const verifier = new ExportVerifier({ keys: [readPublicKey(publicKey)], kept });
  for (const line of lines) {
    const fault = verifier.line(line);
    if (fault !== undefined) return fault;
  }
  return verifier.end();
}

function file(name: string, text: string): string {
  const at = path.join(folder, name);
  writeFileSync(at, text);
  return at;
}

/** `npm run audit:verify`, without a database or a network unless one is given. */
function verify(
  args: string[],
  { databaseUrl = '', stdin = '' } = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const root = path.join(import.meta.dirname, '../..');
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [...entryOf('scripts/audit-verify.ts'), ...args],
      { cwd: root, env: { PATH: process.env['PATH'] ?? '', DATABASE_URL: databaseUrl } },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      },
    );
    child.stdin?.end(stdin);
  });
}

describe('what a merchant gets', () => {
  test('a checkpoint to keep, and exports that hold against it, alone and with it', async () => {
    const kept = await checkpoint();
    await merchant.post('/chat', { modelId: MODEL, prompt: 'x' });
    await makeCheckpoint();
    const answer = await merchant.get('/audit/export');
    expect(answer.headers.get('content-type')).toBe('application/jsonl; charset=utf-8');
    const lines = linesOf(answer);
    const end = JSON.parse(lines.at(-1) ?? '') as {
      to: number;
      events: number;
      checkpoint: ProvenCheckpoint;
    };
    expect(end).toMatchObject({
      end: true,
      merchantId: 'merchant-a',
      from: 1,
      to: lines.length - 1,
      events: lines.length - 1,
    });
    // No further than what is signed.
    expect(end.checkpoint.leaf.seq).toBe(end.to);
    expect(end.checkpoint.leaf.seq).toBeGreaterThan(kept.leaf.seq);
    expect(faultOf(lines, kept.publicKey)).toBeUndefined();
    expect(faultOf(lines, kept.publicKey, [kept])).toBeUndefined();
    expect(answer.text).not.toContain('merchant-b');
    const first = await merchant.get('/audit/export?to=3');
    const pieces = [first, await merchant.get('/audit/export?from=4')];
    expect(faultOf(pieces.flatMap(linesOf), kept.publicKey)).toBeUndefined();
    expect((await merchant.raw('HEAD', '/audit/export')).status).toBe(200);
    expect((await merchant.get('/audit/export?from=0')).status).toBe(400);
    expect(linesOf(await merchant.get('/audit/export?from=999999'))).toHaveLength(1);
  });

  test('who reads the audit is in the audit: one event a request, before what it shows', async () => {
    const newest = async () => {
      const { items } = (await merchant.get('/audit?limit=1')).json as unknown as { items: AuditEvent[] };
      return items[0];
    };
    const recorded = {
      action: 'audit.read',
      outcome: 'allowed',
      resource: 'audit/merchant-a',
      actor: `api-key:${merchant.apiKeyId}`,
    };
    const before = (await newest())?.seq ?? 0;
    await merchant.get('/audit?limit=2&cursor=5');
    expect(await newest()).toMatchObject({
      ...recorded,
      seq: before + 2,
      body: '{"what":"list","cursor":"5"}',
    });
    await merchant.get('/audit/export?from=2&to=3');
    expect(await newest()).toMatchObject({
      ...recorded,
      seq: before + 4,
      body: '{"what":"export","from":2,"to":3}',
    });
    await checkpoint();
    expect(await newest()).toMatchObject({ ...recorded, seq: before + 6, body: '{"what":"checkpoint"}' });
    for (const at of ['', '/export', '/checkpoint']) {
      await operatorOf(service).get(`/api/ops/audit${at}?merchantId=merchant-a`);
      const event = await newest();
      expect(event).toMatchObject({ action: 'audit.read', resource: 'audit/merchant-a' });
      expect(event?.actor).toMatch(/^operator:/);
    }
  });

  test("operators have the same of their own chain, and of a merchant's; asking for one that is not there makes none", async () => {
    const operator = operatorOf(service);
    await operator.get('/api/ops/audit');
    await makeCheckpoint();
    const { json } = await operator.get('/api/ops/audit/checkpoint');
    const { publicKey, leaf } = json as unknown as ProvenCheckpoint;
    expect(leaf.merchantId).toBe('~system');
    expect(faultOf(linesOf(await operator.get('/api/ops/audit/export')), publicKey)).toBeUndefined();
    const of = '?merchantId=merchant-b';
    const theirs = linesOf(await operator.get(`/api/ops/audit/export${of}`));
    expect(faultOf(theirs, publicKey)).toBeUndefined();
    for (const at of ['', '/export', '/checkpoint'])
      expect((await operator.get(`/api/ops/audit${at}?merchantId=nobody-here`)).status).toBe(404);
    const { rows } = await admin.query(`SELECT 1 FROM audit_heads WHERE merchant_id = 'nobody-here'`);
    expect(rows).toEqual([]);
  });

  test('no checkpoint yet is said so, and an export without one is not believed', async () => {
    await using quiet = await startTestService();
    const other = await onboard(quiet, 'merchant-a');
    expect(quiet.logLines.join()).toContain('audit checkpoints are off');
    const answer = await other.get('/audit/checkpoint');
    expect([answer.status, answer.json['code']]).toEqual([404, 'checkpoint.not_found']);
    const lines = linesOf(await other.get('/audit/export'));
    expect(lines.at(-1)).toContain('"checkpoint":null');
    expect(faultOf(lines, (await checkpoint()).publicKey)).toMatchObject({ fault: 'unsigned', seq: 1 });
  });
});

describe('npm run audit:verify', () => {
  test('--export needs nothing but files, and says what it found in three ways', async () => {
    const kept = await checkpoint();
    const { text } = await merchant.get('/audit/export');
    const key = file('key.pem', kept.publicKey);
    const whole = file('whole.jsonl', text);
    const edited = file('edited.jsonl', text.replace('"outcome":"allowed"', '"outcome":"denied"'));
    const early = file('kept.json', JSON.stringify(kept));
    const withKey = ['--public-key', key];
    const [good, piped, bad, missing, noKey, wrong] = await Promise.all([
      verify(['--export', whole, ...withKey, '--checkpoint', early]),
      verify(['--export', '-', ...withKey, '--json'], { stdin: text }),
      verify(['--export', edited, ...withKey]),
      verify(['--export', path.join(folder, 'none'), ...withKey]),
      verify(['--export', whole]),
      verify(['--export', whole, '--public-key', whole]),
    ]);
    expect(good).toMatchObject({ code: 0, stderr: '' });
    expect(good.stdout).toMatch(
      /^ok {6}merchant-a: events 1 to \d+, signed by checkpoint \d+ of main, 20\S+Z\n$/,
    );
    expect(JSON.parse(piped.stdout)).toMatchObject({ chain: 'merchant-a', from: 1 });
    expect(bad.stdout).toMatch(/^BROKEN {2}merchant-a: event 1: .+\(hash\)\n$/);
    expect([piped, bad, missing, noKey, wrong].map(({ code }) => code)).toEqual([0, 1, 2, 2, 2]);
    for (const { stdout, stderr } of [missing, noKey, wrong]) {
      expect(stdout).toBe('');
      expect(stderr).toMatch(/^Not checked: /);
    }
  });

  test('against the database: signatures, order and roots of checkpoints, and chains against them', async () => {
    const kept = await checkpoint();
    await merchant.get('/audit?limit=1');
    await makeCheckpoint();
    const { databaseUrl } = { databaseUrl: service.database.url };
    const args = [
      '--public-key',
      file('key.pem', kept.publicKey),
      '--checkpoint',
      file('kept.json', JSON.stringify(kept)),
    ];
    const { code, stdout, stderr } = await verify(args, { databaseUrl });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(
      /ok {6}merchant-b: \d+ events\nok {6}checkpoints: (\d+) signed for main, \1 held against all chains\n$/,
    );
  });

  test('finds nothing wrong with a chain that is written to meanwhile', async () => {
    await using database = newDatabase();
    const written: string[] = [];
    // Between the head and the events.
    const meanwhile = new Proxy(database, {
      get: (target, name) =>
        name !== 'asTenant'
          ? (Reflect.get(target, name) as unknown)
          : (id: MerchantId, work: (tx: Tx) => Promise<unknown>, options?: object) =>
              target.asTenant(
                id,
                (tx) =>
                  work(
                    new Proxy(tx, {
                      get: (inner, part) =>
                        part !== 'auditEvent'
                          ? (Reflect.get(inner, part) as unknown)
                          : {
                              findMany: async (query: object) => {
                                await admin.query(
                                  `SELECT audit_append($1, 'x', 'access.denied', 'x', 'denied', 'r', '{}')`,
                                  [id],
                                );
                                written.push(id);
                                return inner.auditEvent.findMany(query);
                              },
                            },
                    }),
                  ),
                options,
              ),
    });
    const result = await verifyChain(new AuditStore(meanwhile), 'merchant-b');
    expect(written).toEqual(['merchant-b']);
    expect(result.fault).toBeUndefined();
    expect(result.events).toBeGreaterThan(0);
  });

  const TAMPERED: [name: string, sql: string, chain: string, detail: RegExp][] = [
    [
      'a chain was rewritten to its end, with its head',
      'rewrite',
      'merchant-a',
      /is not the event that checkpoint \d+ signed/,
    ],
    [
      'a tail was cut, and the head put back',
      `DELETE FROM audit_events WHERE merchant_id = 'merchant-a' AND seq > 5;
      UPDATE audit_heads h SET seq = 5, hash = e.hash FROM audit_events e WHERE h.merchant_id = 'merchant-a' AND e.merchant_id = 'merchant-a' AND e.seq = 5`,
      'merchant-a',
      /the chain ends here, but checkpoint \d+ signed event \d+/,
    ],
    [
      'a leaf was removed',
      `DELETE FROM audit_leaves WHERE merchant_id = 'merchant-b'`,
      '~checkpoints',
      /its root is not that of the chains/,
    ],
    [
      'a chain is gone with all of its rows',
      `DELETE FROM audit_leaves WHERE merchant_id = 'merchant-b'; DELETE FROM audit_events WHERE merchant_id = 'merchant-b';
      DELETE FROM audit_heads WHERE merchant_id = 'merchant-b'; DELETE FROM merchants WHERE id = 'merchant-b'`,
      '~checkpoints',
      /its root is not that of the chains/,
    ],
    [
      'a checkpoint is gone',
      `DELETE FROM audit_checkpoints WHERE number = 1`,
      '~checkpoints',
      /expected checkpoint 1/,
    ],
    [
      'a checkpoint was changed',
      `UPDATE audit_checkpoints SET body = replace(body, '"chains":', '"chains":1')  WHERE number = 1`,
      '~checkpoints',
      /its signature does not fit/,
    ],
    [
      'the last checkpoints are gone',
      `DELETE FROM audit_checkpoints WHERE number > 1; DELETE FROM audit_leaves WHERE number > 1`,
      '~checkpoints',
      /went back in time/,
    ],
  ];

  test.each(TAMPERED)('finds that %s', async (_name, sql, chain, detail) => {
    const kept = await checkpoint();
    await using _intact = await intact();
    await admin.query('SET session_replication_role = replica');
    if (sql === 'rewrite') await rewrite();
    else await admin.query(sql);
    const results = await resultsOf({ keys: [readPublicKey(kept.publicKey)], kept: [kept] });
    expect(results.flatMap(({ fault }) => fault ?? [])).toEqual([
      expect.objectContaining({ merchantId: chain, detail: expect.stringMatching(detail) }),
    ]);
  });

  /** Keeps the service from making checkpoints, and puts everything back at the end. */
  async function intact(): Promise<AsyncDisposable> {
    await admin.query(`SELECT pg_advisory_lock(hashtextextended('audit_checkpoint_begin', 0))`);
    const kept = [
      'number',
      'at',
      'chains',
      'events',
      'root',
      'blind',
      'body',
      'signature',
      'key_id',
      'public_key',
      'signed_at',
      'sign_after',
      'copied_at',
      'copy_after',
    ].join();
    const tables = [
      ['audit_events', '*'],
      ['audit_heads', '*'],
      ['audit_leaves', '*'],
      ['audit_checkpoints', kept],
      ['merchants', '*'],
    ] as const;
    await admin.query('CREATE SCHEMA saved');
    for (const [table, columns] of tables)
      await admin.query(`CREATE TABLE saved.${table} AS SELECT ${columns} FROM ${table}`);
    return {
      [Symbol.asyncDispose]: async () => {
        for (const [table, columns] of tables)
          await admin.query(
            `DELETE FROM ${table}; INSERT INTO ${table} ${columns === '*' ? '' : `(${columns})`} SELECT * FROM saved.${table}`,
          );
        await admin.query(`SET session_replication_role = origin; DROP SCHEMA saved CASCADE;
          SELECT pg_advisory_unlock(hashtextextended('audit_checkpoint_begin', 0))`);
      },
    };
  }

  /** As the owner of the database would: every number, link, hash and the head are right again. */
  async function rewrite(): Promise<void> {
    const { rows } = await admin.query<Record<string, string> & { prev_hash: Buffer; hash: Buffer }>(
      `SELECT * FROM audit_events WHERE merchant_id = 'merchant-a' ORDER BY seq`,
    );
    let prevHash = '00'.repeat(32);
    for (const row of rows) {
      const event = {
        merchantId: 'merchant-a',
        seq: Number(row['seq']),
        atMicros: row['at_micros'] ?? '',
        actor: row['seq'] === '3' ? 'nobody' : (row['actor'] ?? ''),
        action: row['action'] ?? '',
        resource: row['resource'] ?? '',
        outcome: row['outcome'] ?? '',
        requestId: row['request_id'] ?? '',
        body: row['body'] ?? '',
        prevHash,
      };
      const hash = hashOf(event);
      await admin.query(
        `UPDATE audit_events SET actor = $2, prev_hash = decode($3, 'hex'), hash = decode($4, 'hex') WHERE merchant_id = 'merchant-a' AND seq = $1`,
        [event.seq, event.actor, prevHash, hash],
      );
      prevHash = hash;
    }
    await admin.query(`UPDATE audit_heads SET hash = decode($1, 'hex') WHERE merchant_id = 'merchant-a'`, [
      prevHash,
    ]);
  }

  function newDatabase(): Database {
    return new Database({
      url: new Secret(service.database.url),
      connectionsMax: 2,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
  }

  async function resultsOf(options: Parameters<typeof verifyDatabase>[1]) {
    await using database = newDatabase();
    const stores = {
      audit: new AuditStore(database),
      checkpoints: new CheckpointStore(database),
      merchants: new MerchantStore(database),
    };
    const results = [];
    for await (const result of verifyDatabase(stores, options)) results.push(result);
    return results;
  }
});

/** Routes that neither do anything nor show an audit trail: they answer as ever. Every other route must refuse. */
const UNRECORDED: ReadonlySet<string> = new Set([
  'GET credentials',
  'GET credentials/:cid',
  'GET credentials/:cid/policies',
  'GET credentials/:cid/rotation',
  'GET usage',
  'GET usage/records',
  'GET usage/export',
  'GET usage/verify',
  'GET limits',
  'GET alerts',
  'GET webhooks',
  'GET webhooks/:wid/deliveries',
  'GET api-keys',
  'GET ops/merchants',
  'GET ops/plans',
  'GET ops/prices',
  'GET ops/usage',
  'GET ops/unknown',
  'GET ops/usage/verify',
  'GET livez',
  'GET readyz',
  'GET openapi.json',
]);
/**
 * What AWS may be asked for no merchant, and so without a record: who this service itself is, whom a role is to trust; and the signatures and
 * copies of checkpoints, over events that were written before.
 */
const FOR_NO_MERCHANT: ReadonlySet<string> = new Set(
  ['GetCallerIdentity', 'Sign', 'GetPublicKey', 'PutObject'].map(
    (name) => `${name} by ${AWS.service.accessKeyId}`,
  ),
);
/** What else the stand-in was asked since it forgot. */
const questions = () =>
  service.standIn.journal
    .map(({ operation, accessKeyId = 'nobody' }) => `${operation} by ${accessKeyId}`)
    .filter((question) => !FOR_NO_MERCHANT.has(question));

const nameOf = ({ method, path: at }: Route) =>
  `${method} ${at.replace(/^\/(api\/)?(merchants\/:id\/bedrock\/)?/, '')}`;

/** A stored credential. */
async function newCredential(body: object): Promise<{ id: string; externalId: string }> {
  const answer = await merchant.post('/credentials', body);
  expect(answer.status).toBe(201);
  return answer.json as { id: string; externalId: string };
}

/** Credentials that each stand where only the missing audit is in the way of what is asked for. */
async function credentialsForEach(credential: object): Promise<Record<string, string>> {
  const [frozen, rotated, role] = await Promise.all([
    newCredential(credential),
    newCredential(credential),
    newCredential({ kind: 'assume-role', name: 'role', region: 'us-east-1' }),
  ]);
  expect((await merchant.post(`/credentials/${frozen.id}/freeze`, {})).status).toBe(200);
  expect((await merchant.post(`/credentials/${rotated.id}/rotate`, MATERIAL)).status).toBe(200);
  service.standIn.addRole({ arn: ROLE, trusts: [AWS.service.arn], externalId: role.externalId });
  return { thaw: frozen.id, rollback: rotated.id, activate: role.id, policies: role.id };
}

const byRole = (credentialId: string) => ({ 'x-bedrock-credential-id': credentialId });

async function activatedRole(): Promise<string> {
  const { id, externalId } = await newCredential({ kind: 'assume-role', name: 'used', region: 'us-east-1' });
  const roleArn = `${ROLE}-and-used`;
  service.standIn.addRole({ arn: roleArn, trusts: [AWS.service.arn], externalId });
  expect((await merchant.post(`/credentials/${id}/activate`, { roleArn, makeDefault: false })).status).toBe(
    200,
  );
  return id;
}

/** Of the account of the merchant's credentials; which model it runs is not known before AWS is asked. */
const PROFILE = `arn:aws:bedrock:us-east-1:${AWS.merchantA.accountId}:application-inference-profile/abcdefghijkl`;
/** Its bytes do not fit a limit that its tokens fit. */
const LONG = Array.from({ length: 500 }, () => 'international-organisation').join(' ');
const CLAUDE = 'anthropic.claude-3-haiku-20240307-v1:0';

/** Other ways to AWS on the routes that have several; the table of routes takes one. */
function furtherWays(near: MerchantPerson, roleId: string): Record<string, () => Promise<Answer>> {
  const wire = converseBody('x');
  const useServiceDefaults = { 'x-bedrock-use-service-defaults': 'true' };
  return {
    'initialize with what is in memory': () => merchant.post('/initialize', { modelId: MODEL }),
    'initialize with service defaults': () =>
      merchant.post('/initialize', { modelId: MODEL, useServiceDefaults: true }),
    'converse with direct keys': () => merchant.post(`/model/${MODEL}/converse`, wire, directHeaders()),
    'converse with service defaults': () =>
      merchant.post(`/model/${MODEL}/converse`, wire, useServiceDefaults),
    'converse with a profile': () => merchant.post(`/model/${encodeURIComponent(PROFILE)}/converse`, wire),
    'a rotation at IAM': () => near.post(`/credentials/${near.credentialId}/rotate`, { mode: 'iam' }),
    'converse near a limit': () => near.post(`/model/${CLAUDE}/converse`, converseBody(LONG)),
    'a Bedrock API key': () =>
      merchant.post('/credentials', {
        kind: 'bedrock-api-key',
        name: 'x',
        region: 'us-east-1',
        bedrockApiKey: `ABSK${'x'.repeat(60)}`,
      }),
    'a role in another region': () =>
      merchant.post(`/model/${MODEL}/converse`, wire, { ...byRole(roleId), 'x-bedrock-region': 'us-west-2' }),
  };
}

/** Last: it breaks this file's service on purpose. */
test('no audit, no effect, for every row of the table of routes', async () => {
  const { awsAccessKeyId, awsSecretAccessKey } = directFields();
  const credential = {
    kind: 'access-key',
    name: 'x',
    region: 'us-east-1',
    awsAccessKeyId,
    awsSecretAccessKey,
  };
  const credentials = await credentialsForEach(credential);
  await using receiver = await startReceiver();
  const webhook = { url: `${receiver.url}/in` };
  const { json: made } = await merchant.post('/webhooks', webhook);
  const wid = made['id'] as string;
  const did = (await merchant.post(`/webhooks/${wid}/test`, undefined)).json['deliveryId'] as string;
  await until('it is delivered', async () => {
    const { rowCount } = await admin.query(
      `SELECT 1 FROM webhook_deliveries WHERE id = $1 AND state = 'delivered'`,
      [did],
    );
    return rowCount === 1;
  });
  const { rows: ended } = await admin.query(
    `UPDATE webhook_deliveries SET state = 'dead', delivered_at = NULL WHERE id = $1 RETURNING id`,
    [did],
  );
  expect(ended).toHaveLength(1);
  const roleId = await activatedRole();
  expect((await merchant.post(`/model/${MODEL}/converse`, converseBody('x'), byRole(roleId))).status).toBe(
    200,
  );
  service.standIn.addModelArn(PROFILE, MODEL);
  const near = await onboard(service, 'near-its-limit');
  await setPlan(service, near.merchantId, { tokensPerDay: { max: 5_000, mode: 'hard' } });
  // From here on both have what they sign with in memory.
  await near.post(`/model/${CLAUDE}/converse`, converseBody('x'));
  service.standIn.fault({ operation: 'Converse', cutBody: true });
  await merchant.post(`/model/${MODEL}/converse`, converseBody('x'));
  const { rows: unknown } = await admin.query<{ id: string }>(`SELECT id FROM calls WHERE state = 'unknown'`);
  await admin.query(`CREATE OR REPLACE FUNCTION audit_append_all(p_entries audit_entry[]) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN IF pg_catalog.cardinality(p_entries) > 0 THEN RAISE EXCEPTION 'no audit'; END IF; END $$`);
  service.standIn.forget();
  const wire = converseBody('x');
  const invoke = {
    anthropic_version: 'bedrock-2023-05-31',
    max_tokens: 20,
    messages: [{ role: 'user', content: 'x' }],
  };
  const bodies: Record<string, unknown> = {
    'model/*modelId/converse': wire,
    'model/*modelId/converse-stream': wire,
    'model/*modelId/invoke': invoke,
    'model/*modelId/invoke-with-response-stream': invoke,
    'model/*modelId/count-tokens': { input: { converse: wire } },
    chat: { modelId: MODEL, prompt: 'x' },
    initialize: { modelId: MODEL, ...directFields() },
    credentials: credential,
    'credentials/:cid': { isDefault: true },
    'credentials/:cid/test': {},
    'credentials/:cid/freeze': {},
    'credentials/:cid/thaw': {},
    'credentials/:cid/activate': { roleArn: ROLE },
    'credentials/:cid/rotate': MATERIAL,
    'permissions/test': { models: [MODEL] },
    limits: { endUsers: { each: { callsInFlight: { max: 100 } } } },
    webhooks: webhook,
    'api-keys': { name: 'x' },
    'api-keys/:kid/roll': { overlapHours: 1 },
    'ops/merchants': { id: 'unaudited', name: 'x', apiKey: { name: 'x' }, credential },
    'ops/merchants/:id': { status: 'suspended' },
    'ops/merchants/:id/close': { merchantId: merchant.merchantId },
    'ops/merchants/:id/credentials/:cid/freeze': {},
    'ops/merchants/:id/credentials/:cid/thaw': {},
    'ops/merchants/:id/credentials/:cid/approve-account': { accountId: '123456789012', reason: 'x' },
    'ops/merchants/:id/calls/:callId/resolve': { state: 'void', reason: 'x' },
    'ops/plans': { id: 'unaudited', spec: {} },
  };
  const day = new Date().toISOString().slice(0, 10);
  const next = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);
  const wrong: string[] = [];
  for (const route of ROUTES) {
    const name = nameOf(route);
    const at = route.path
      .replace(':id', merchant.merchantId)
      .replace(':cid', credentials[name.split('/').at(-1) ?? ''] ?? merchant.credentialId)
      .replace(':kid', merchant.apiKeyId)
      .replace(':callId', unknown[0]?.id ?? '')
      .replace(':wid', wid)
      .replace(':did', did)
      .replace('*modelId', /invoke/.test(name) ? CLAUDE : MODEL)
      .replace('bedrock/usage/export', `bedrock/usage/export?format=ndjson&from=${day}&to=${next}`);
    const person = { operator: operatorOf(service), public: new Person(service.url), merchant }[
      route.endpoint.kind
    ];
    const body = route.endpoint.body === undefined ? undefined : bodies[name.split(' ')[1] ?? ''];
    const { status, text } = await person.send(route.method, at, body);
    const right = UNRECORDED.has(name)
      ? status < 300
      : status === 500 && text.includes('internal') && !text.includes('prevHash') && !text.includes('"leaf"');
    if (!right) wrong.push(`${name}: ${String(status)} ${text.slice(0, 200)}`);
    for (const question of questions()) wrong.push(`${name}: AWS was asked ${question}`);
    service.standIn.forget();
  }
  for (const [name, ask] of Object.entries(furtherWays(near, roleId))) {
    const { status, text } = await ask();
    if (status !== 500) wrong.push(`${name}: ${String(status)} ${text.slice(0, 200)}`);
    for (const question of questions()) wrong.push(`${name}: AWS was asked ${question}`);
    service.standIn.forget();
  }
  expect(wrong).toEqual([]);
});
