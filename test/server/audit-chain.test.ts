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
import { directFields, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
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
function verify(...args: string[]): Promise<{ code: number; stdout: string }> {
  const root = path.join(import.meta.dirname, '../..');
  const env = { PATH: process.env['PATH'] ?? '', DATABASE_URL: service.database.url };
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', path.join(root, 'scripts/audit-verify.ts'), ...args],
      { cwd: root, env },
      (error, stdout) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout });
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
      fc.record({ kind: fc.constant('repeat' as const), at }),
      fc.record({ kind: fc.constant('swap' as const), at }),
      fc.record({ kind: fc.constant('cut' as const), at }),
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
        if (how.kind === 'delete') chain.splice(index, 1);
        if (how.kind === 'repeat') chain.splice(index, 0, { ...event });
        if (how.kind === 'swap') chain.splice(index, 2, ...chain.slice(index, index + 2).reverse());
        if (how.kind === 'cut') chain.length = index;
        // The best forger: changes one event and recomputes everything after it. Only the head knows.
        if (how.kind === 'rewrite') rewriteFrom(chain, index);
        fc.pre(JSON.stringify(chain) !== JSON.stringify(events));
        expect(faultOf(chain)).toBeDefined();
      }),
      { numRuns: 2_000 },
    );
  });

  function rewriteFrom(chain: AuditEvent[], index: number): void {
    for (let at = index; at < chain.length; at += 1) {
      const event = chain[at] as AuditEvent;
      if (at === index) event.actor = 'somebody else';
      else event.prevHash = chain[at - 1]?.hash ?? '';
      event.hash = hashOf(event);
    }
  }
});

describe('npm run audit:verify', () => {
  test('says that all chains hold, and ends with 0', async () => {
    const { code, stdout } = await verify();
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^ok {6}~system: \d+ events\nok {6}merchant-a: \d+ events\n$/),
    });
  });

  test.each([
    [
      'an edited event',
      `UPDATE audit_events SET actor = 'nobody' WHERE merchant_id = 'merchant-a' AND seq = 7`,
      7,
    ],
    ['a deleted event', `DELETE FROM audit_events WHERE merchant_id = 'merchant-a' AND seq = 9`, 10],
    ['a cut tail', `DELETE FROM audit_events WHERE merchant_id = 'merchant-a' AND seq > 20`, 20],
  ])(
    'finds %s that an owner of the database made, names the first bad event, and ends with 1',
    async (_name, sql, seq) => {
      await admin.query('CREATE TEMP TABLE kept AS SELECT * FROM audit_events');
      await admin.query(`ALTER TABLE audit_events DISABLE TRIGGER USER; ${sql}`);
      const { code, stdout } = await verify('--merchant', MERCHANT, '--json');
      await admin.query(
        `DELETE FROM audit_events; INSERT INTO audit_events SELECT * FROM kept; DROP TABLE kept; ALTER TABLE audit_events ENABLE TRIGGER USER`,
      );
      expect({ code, fault: (JSON.parse(stdout) as { fault: { seq: number } }).fault.seq }).toEqual({
        code: 1,
        fault: seq,
      });
    },
  );
});

test.each([
  'UPDATE audit_events SET actor = $1::text',
  'DELETE FROM audit_events WHERE actor <> $1::text',
  `INSERT INTO audit_heads VALUES ($1::text, 0, decode($1::text, 'escape'))`,
])('the service itself cannot: %s', async (sql) => {
  const login = new pg.Client({ connectionString: service.database.url });
  await login.connect();
  await expect(login.query(sql, ['x'])).rejects.toMatchObject({ code: '42501' });
  await login.end();
});

test('not even an owner by accident: the table refuses changes', async () => {
  await expect(admin.query(`UPDATE audit_events SET actor = 'x'`)).rejects.toThrow(/append-only/);
  await expect(admin.query('TRUNCATE audit_events')).rejects.toThrow(/append-only/);
});

/** Last: it breaks the chain of this file's service on purpose. */
test('no audit, no effect: when nothing can be recorded, nothing is called, stored, opened, made or revoked', async () => {
  const made = await merchant.post('/api-keys', { name: 'to revoke' });
  await admin.query(`ALTER TABLE audit_heads ADD CONSTRAINT stuck CHECK (seq < 0) NOT VALID`);
  service.standIn.forget();
  const count = async () =>
    (
      await admin.query(
        'SELECT (SELECT count(*) FROM calls) AS calls, (SELECT count(*) FROM api_keys) AS keys, (SELECT count(*) FROM api_keys WHERE revoked_at IS NULL) AS live, (SELECT count(*) FROM credentials) AS credentials',
      )
    ).rows[0] as unknown;
  const before = await count();
  const answers = [
    await merchant.post('/chat', { modelId: MODEL, prompt: 'x' }),
    await merchant.post('/chat', { modelId: MODEL, prompt: 'x', ...directFields() }),
    await merchant.post('/initialize', directFields()),
    await merchant.post('/api-keys', { name: 'x' }),
    await merchant.send('DELETE', `/api-keys/${made.json['id'] as string}`),
    await merchant.post(`/credentials/${merchant.credentialId}/test`, {}),
    await merchant.send('DELETE', `/credentials/${merchant.credentialId}`),
  ];
  for (const answer of answers) expect(answer.status).toBeGreaterThanOrEqual(500);
  expect(runtimeCalls(service)).toEqual([]);
  expect(await count()).toEqual(before);
});
