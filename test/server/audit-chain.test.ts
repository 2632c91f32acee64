import { execFile } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import pg from 'pg';
import { AuditStore } from '../../src/audit/audit-store.ts';
import type { AuditEvent } from '../../src/audit/audit.ts';
import { ChainVerifier, hashOf } from '../../src/audit/verify.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import { converseBody, directFields, onboard, operatorOf, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { entryOf } from '../support/transpiled.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const MERCHANT = 'merchant-a' as MerchantId;

let service: TestService;
let merchant: MerchantPerson;
let admin: pg.Client;
let events: AuditEvent[];
let head: { seq: number; hash: string } | undefined;

beforeAll(async () => {
  service = await startTestService();
  merchant = await onboard(service, MERCHANT);
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  // Fifty at once: the chain must not fork.
  await Promise.all(
    Array.from({ length: 50 }, (_, index) =>
      merchant.post('/chat', { modelId: MODEL, prompt: `call ${String(index)}` }),
    ),
  );
  await merchant.get('/api/merchants/somebody-else/bedrock/usage');
  await using database = new Database({
    url: new Secret(service.database.url),
    connectionsMax: 2,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  ({ events, head } = await new AuditStore(database).page(MERCHANT, 0, 1_000));
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
});

function faultOf(chain: readonly AuditEvent[]) {
  const verifier = new ChainVerifier(MERCHANT);
  for (const event of chain) {
    const fault = verifier.check(event);
    if (fault !== undefined) return fault;
  }
  return verifier.end(head);
}

/** `npm run audit:verify`, as an operator runs it. */
function verify(
  args: string[],
  databaseUrl: string | undefined = service.database.url,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const root = path.join(import.meta.dirname, '../..');
  const env = { PATH: process.env['PATH'] ?? '', DATABASE_URL: databaseUrl };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [...entryOf('scripts/audit-verify.ts'), ...args],
      { cwd: root, env },
      (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      },
    );
  });
}

describe('the verifier', () => {
  test('accepts what was written, by fifty at once, without a gap', () => {
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.filter((event) => event.action === 'call.admitted')).toHaveLength(50);
    expect(faultOf(events)).toBeUndefined();
  });

  const TEXTS = [
    'merchantId',
    'at',
    'actor',
    'action',
    'resource',
    'outcome',
    'requestId',
    'body',
    'atMicros',
    'prevHash',
    'hash',
  ] as const;
  const at = fc.nat(200);

  test('finds 2,000 random changes: every one', () => {
    const change = fc.oneof(
      fc.record({
        kind: fc.constant('edit' as const),
        at,
        field: fc.constantFrom(...TEXTS),
        text: fc.string({ minLength: 1, maxLength: 12 }),
      }),
      fc.record({ kind: fc.constant('delete' as const), at }),
      fc.record({ kind: fc.constant('renumber' as const), at, seq: fc.nat(300) }),
      fc.record({ kind: fc.constant('repeat' as const), at }),
      fc.record({ kind: fc.constant('insert' as const), at }),
      fc.record({ kind: fc.constant('swap' as const), at }),
      fc.record({ kind: fc.constant('cut' as const), at }),
      fc.record({ kind: fc.constant('shorten and rewrite' as const), at }),
      fc.record({ kind: fc.constant('rewrite' as const), at }),
    );
    fc.assert(
      fc.property(change, (how) => {
        const chain = events.map((event) => ({ ...event }));
        const index = how.at % chain.length;
        const event = chain[index] as AuditEvent;
        if (how.kind === 'edit')
          event[how.field] =
            how.field === 'hash' || how.field === 'prevHash' ? 'ab'.repeat(32) : event[how.field] + how.text;
        if (how.kind === 'renumber') event.seq = how.seq;
        // A forged event with the right link and hash: what follows it does not fit.
        if (how.kind === 'insert') {
          const forged = { ...event, actor: 'somebody else' };
          chain.splice(index, 0, { ...forged, hash: hashOf(forged) });
        }
        if (how.kind === 'delete') chain.splice(index, 1);
        if (how.kind === 'repeat') chain.splice(index, 0, { ...event });
        if (how.kind === 'swap') chain.splice(index, 2, ...chain.slice(index, index + 2).reverse());
        if (how.kind === 'cut') chain.length = index;
        if (how.kind === 'rewrite') rewriteFrom(chain, index);
        if (how.kind === 'shorten and rewrite') {
          chain.splice(index, 1);
          rewriteFrom(chain, index);
        }
        fc.pre(JSON.stringify(chain) !== JSON.stringify(events));
        expect(faultOf(chain)).toBeDefined();
      }),
      { numRuns: 2_000 },
    );
  });

  test('a chain that was rewritten to its end is found by the head alone', () => {
    const chain = events.map((event) => ({ ...event }));
    rewriteFrom(chain, 5);
    const verifier = new ChainVerifier(MERCHANT);
    expect(chain.map((event) => verifier.check(event)).filter(Boolean)).toEqual([]);
    expect(verifier.end(head)).toMatchObject({ fault: 'head' });
    // Whoever rewrites the head as well is found by a head that was noted elsewhere, and by nothing in the database.
    const last = chain.at(-1) as AuditEvent;
    expect(verifier.end({ seq: last.seq, hash: last.hash })).toBeUndefined();
  });

  /** The best forger: changes one event, and makes every number, link and hash after it right. */
  function rewriteFrom(chain: AuditEvent[], index: number): void {
    for (let at = index; at < chain.length; at += 1) {
      const event = chain[at] as AuditEvent;
      if (at === index) event.actor = 'somebody else';
      event.seq = at + 1;
      event.prevHash = chain[at - 1]?.hash ?? '00'.repeat(32);
      event.hash = hashOf(event);
    }
  }
});

/** What an owner of the database can do to a chain of ten events, and the first event that is not what was written. */
const TAMPERED: [merchant: string, sql: string, seq: number, fault: string][] = [
  ['edited', `UPDATE audit_events SET actor = 'nobody' WHERE merchant_id = 'edited' AND seq = 7`, 7, 'hash'],
  [
    'edited-body',
    `UPDATE audit_events SET body = '{ }' WHERE merchant_id = 'edited-body' AND seq = 3`,
    3,
    'hash',
  ],
  ['deleted', `DELETE FROM audit_events WHERE merchant_id = 'deleted' AND seq = 4`, 5, 'sequence'],
  ['cut', `DELETE FROM audit_events WHERE merchant_id = 'cut' AND seq > 6`, 6, 'head'],
  ['emptied', `DELETE FROM audit_events WHERE merchant_id = 'emptied'`, 0, 'head'],
  [
    'gone',
    `DELETE FROM audit_events WHERE merchant_id = 'gone'; DELETE FROM audit_heads WHERE merchant_id = 'gone'`,
    0,
    'head',
  ],
  [
    'inserted',
    `UPDATE audit_events SET seq = -seq WHERE merchant_id = 'inserted' AND seq > 5;
     UPDATE audit_events SET seq = -seq + 1 WHERE merchant_id = 'inserted' AND seq < 0;
     INSERT INTO audit_events SELECT merchant_id, 6, at_micros, 'forger', action, resource, outcome, request_id, body, hash, hash
       FROM audit_events WHERE merchant_id = 'inserted' AND seq = 5`,
    6,
    'hash',
  ],
  [
    'swapped',
    `UPDATE audit_events SET seq = -seq WHERE merchant_id = 'swapped' AND seq IN (2, 3);
     UPDATE audit_events SET seq = 5 + seq WHERE merchant_id = 'swapped' AND seq < 0`,
    2,
    'link',
  ],
];

describe('npm run audit:verify', () => {
  test('says that all chains hold, helps, and says when it could not check', async () => {
    const [text, help, unknown, none, away] = await Promise.all([
      verify([]),
      verify(['--help']),
      verify(['--merchant', 'nobody-here']),
      verify([], ''),
      verify([], 'postgres://x:sesame-open@127.0.0.1:1/x'),
    ]);
    expect(text.stdout).toMatch(/^ok {6}~system: \d+ events\nok {6}merchant-a: \d+ events\n$/);
    expect(help.stdout).toContain('Exit code: 0 all chains hold');
    expect([text, help].map(({ code }) => code)).toEqual([0, 0]);
    expect([unknown, none, away].map(({ code }) => code)).toEqual([2, 2, 2]);
    for (const { stdout, stderr } of [unknown, none, away]) {
      expect(stdout).toBe('');
      expect(stderr).not.toBe('');
      expect(stderr).not.toContain('sesame-open');
    }
  });

  test('names the first bad event of each chain that an owner of the database changed, and ends with 1', async () => {
    for (const [chain] of TAMPERED)
      await admin.query(
        `INSERT INTO merchants (id, name) VALUES ('${chain}', 'x');
         SELECT audit_append('${chain}', 'x', 'call.admitted', 'call/' || n, 'allowed', 'r', '{}') FROM generate_series(1, 10) n`,
      );
    await admin.query(
      `ALTER TABLE audit_events DISABLE TRIGGER USER; ALTER TABLE audit_events DROP CONSTRAINT audit_events_seq_check`,
    );
    for (const [, sql] of TAMPERED) await admin.query(sql);
    await admin.query('ALTER TABLE audit_events ENABLE TRIGGER USER');
    const [all, one] = await Promise.all([verify(['--json']), verify(['--merchant', 'deleted'])]);
    const results = all.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { chain: string; fault?: { seq: number; fault: string } });
    const broken = results.filter(({ fault }) => fault !== undefined);
    expect(broken.map(({ chain, fault }) => [chain, fault?.seq, fault?.fault])).toEqual(
      TAMPERED.map(([chain, , seq, fault]) => [chain, seq, fault]).sort(([a], [b]) =>
        String(a) < String(b) ? -1 : 1,
      ),
    );
    // The others hold.
    expect(results.filter(({ fault }) => fault === undefined).map(({ chain }) => chain)).toEqual([
      '~system',
      MERCHANT,
    ]);
    expect(one.stdout).toMatch(/^BROKEN {2}deleted: event 5: .+\(sequence\)\n$/);
    expect([all.code, one.code]).toEqual([1, 1]);
  });
});

test.each([
  'UPDATE audit_events SET actor = $1::text',
  'DELETE FROM audit_events WHERE actor <> $1::text',
  `INSERT INTO audit_events VALUES ($1::text, 1, 0, '', '', '', '', '', '', '', '')`,
  `UPDATE audit_heads SET seq = 0 WHERE merchant_id = $1::text`,
  `INSERT INTO audit_heads VALUES ($1::text, 0, decode($1::text, 'escape'))`,
])('the service itself cannot: %s', async (sql) => {
  const login = new pg.Client({ connectionString: service.database.url });
  await login.connect();
  await expect(login.query(sql, ['x'])).rejects.toMatchObject({ code: '42501' });
  await expect(login.query('TRUNCATE audit_events')).rejects.toMatchObject({ code: '42501' });
  await login.end();
});

test('not even an owner by accident: the table refuses changes', async () => {
  await expect(admin.query(`UPDATE audit_events SET actor = 'x'`)).rejects.toThrow(/append-only/);
  await expect(admin.query('DELETE FROM audit_events')).rejects.toThrow(/append-only/);
  await expect(admin.query('TRUNCATE audit_events')).rejects.toThrow(/append-only/);
});

/** Last: it breaks this file's service on purpose. */
test('no audit, no effect: when nothing can be recorded, nothing is called, stored, opened, made or revoked', async () => {
  const made = await merchant.post('/api-keys', { name: 'to revoke' });
  await admin.query(`CREATE OR REPLACE FUNCTION audit_append_all(p_entries audit_entry[]) RETURNS void LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'no audit'; END $$`);
  service.standIn.forget();
  const rows = async () => {
    const tables = [
      'merchants',
      'api_keys',
      'credentials',
      'credential_versions',
      'calls',
      'usage_days',
      'audit_events',
    ];
    const dumps = tables.map(
      (table) => `(SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM ${table} t)`,
    );
    return (await admin.query(`SELECT ${dumps.join(', ')}`)).rows;
  };
  const before = await rows();
  const { awsAccessKeyId, awsSecretAccessKey } = directFields();
  const credential = {
    kind: 'access-key',
    name: 'x',
    region: 'us-east-1',
    awsAccessKeyId,
    awsSecretAccessKey,
  };
  const { credentialId } = merchant;
  const answers = await Promise.all([
    merchant.post('/chat', { modelId: MODEL, prompt: 'x' }),
    merchant.post('/chat', { modelId: MODEL, prompt: 'x', stream: true }),
    merchant.post('/chat', { modelId: MODEL, prompt: 'x', ...directFields() }),
    merchant.post('/chat', { modelId: MODEL, prompt: 'x', useServiceDefaults: true }),
    merchant.post(`/model/${MODEL}/converse`, converseBody('x')),
    merchant.post(`/model/${MODEL}/converse-stream`, converseBody('x')),
    merchant.post('/initialize', directFields()),
    merchant.post('/credentials', credential),
    merchant.send('PATCH', `/credentials/${credentialId}`, { isDefault: true }),
    merchant.post(`/credentials/${credentialId}/test`, {}),
    merchant.send('DELETE', `/credentials/${credentialId}`),
    merchant.post('/api-keys', { name: 'x' }),
    merchant.send('DELETE', `/api-keys/${made.json['id'] as string}`),
    operatorOf(service).post('/api/ops/merchants', {
      id: 'unaudited',
      name: 'x',
      apiKey: { name: 'x' },
      credential,
    }),
  ]);
  expect(answers.map(({ status }) => status >= 500)).toEqual(answers.map(() => true));
  expect(answers.filter(({ text }) => /"(token|session)":"/.test(text))).toEqual([]);
  expect(runtimeCalls(service)).toEqual([]);
  expect(await rows()).toEqual(before);
  // Nothing was opened, nothing sealed, and nobody asked whose the keys are that could not be stored.
  const asked = service.standIn.journal.map(({ operation }) => operation);
  expect(asked.filter((operation) => !['Sign', 'GetPublicKey'].includes(operation))).toEqual([]);
});
