import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { revokeOperatorKey } from '../../scripts/cli/operator-keys.ts';
import { Secret } from '../../src/domain/secret.ts';
import { JWT_SETTINGS, signJwt } from '../support/jwt.ts';
import { withAdmin } from '../support/limits.ts';
import { onboard, Person } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import type { Protocol } from '../support/raw-stream.ts';
import { startReplica } from '../support/replicas.ts';
import type { Replica } from '../support/replicas.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { eventually, until } from '../support/until.ts';

/** What is promised, from the answer of the revocation. A look is far more frequent here. Milliseconds. */
const BOUND_MS = 10_000;
const date = (days: number) => new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10);
const DAYS = `from=${date(-1)}&to=${date(1)}`;
const EXPORTS = [
  `/usage/export?format=ndjson&${DAYS}`,
  `/usage/export?format=csv&${DAYS}`,
  `/usage/export?format=focus&${DAYS}`,
  '/audit/export',
] as const;
/** More than what HTTP/2 sends ahead of its reader; and more than what the buffers of a TCP connection hold. Each has 2 kB. */
const ROWS = 200;
const ROWS_OF_TCP = 6_000;

/** Where exports run, and where rights are taken away. */
let service: TestService;
let other: Replica;
let operator: Person;

beforeAll(async () => {
  service = await startTestService({ REVOCATION_LOOK_MS: '200', ...JWT_SETTINGS });
  other = await startReplica(service);
  operator = new Person(other.url, service.operatorToken);
});
afterAll(async () => {
  await other[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

/** A merchant with so many calls and events, that an export of it does not end while nobody reads it. */
async function newMerchant(id: string, rows = ROWS): Promise<MerchantPerson> {
  const merchant = await onboard(service, id);
  const { status } = await merchant.post('/chat', { modelId: 'amazon.nova-micro-v1:0', prompt: 'x' });
  expect(status).toBe(200);
  await withAdmin(service, async (admin) => {
    await admin.query(
      `INSERT INTO calls SELECT (jsonb_populate_record(c, jsonb_build_object(
         'id', overlay(c.id::text PLACING lpad(to_hex(n), 12, '0') FROM 25), 'end_user', repeat('u', 2000), 'cost_nano', 7))).*
       FROM calls c, generate_series(1, $2::integer) n WHERE c.merchant_id = $1`,
      [id, rows],
    );
    await admin.query(
      `INSERT INTO audit_events SELECT (jsonb_populate_record(e, jsonb_build_object('seq', h.seq + n, 'body', repeat('b', 2000)))).*
       FROM audit_heads h, audit_events e, generate_series(1, $2::integer) n
       WHERE h.merchant_id = $1 AND e.merchant_id = $1 AND e.seq = 1`,
      [id, rows],
    );
    await admin.query(`UPDATE audit_heads SET seq = seq + $2 WHERE merchant_id = $1`, [id, rows]);
  });
  return merchant;
}

/** An export that has begun, and that nobody reads until `rest`. */
interface Export {
  path: string;
  protocol: Protocol;
  requestId: string;
  /** What can be read of it now, and whether it looks as if that were all. */
  rest: () => Promise<{ text: string; whole: boolean }>;
  leave: () => void;
}

async function begin(protocol: Protocol, path: string, token: string): Promise<Export> {
  const headers = { authorization: `Bearer ${token}` };
  if (protocol === 'h1') {
    const sent = http.get(service.url + path, { headers, agent: false });
    const [answer] = (await once(sent, 'response')) as [http.IncomingMessage];
    sent.on('error', () => undefined);
    const { statusCode, headers: head } = answer;
    return newExport({ protocol, path, head: { ...head, ':status': String(statusCode) } }, answer, () =>
      sent.destroy(),
    );
  }
  const session = http2.connect(service.url);
  session.on('error', () => undefined);
  const stream = session.request({ ':path': path, ...headers });
  const [head] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
  stream.once('close', () => {
    session.close();
  });
  return newExport({ protocol, path, head }, stream, () => {
    session.destroy();
  });
}

function newExport(
  { protocol, path, head }: { protocol: Protocol; path: string; head: http2.IncomingHttpHeaders },
  source: Readable,
  leave: () => void,
): Export {
  expect({ path, status: Number(head[':status']) }).toEqual({ path, status: 200 });
  const chunks: Buffer[] = [];
  let whole = false;
  source.on('error', () => undefined).once('end', () => (whole = true));
  const closed = new Promise((resolve) => source.once('close', resolve));
  return {
    protocol,
    path,
    requestId: String(head['x-request-id']),
    rest: async () => {
      source.on('data', (chunk: Buffer) => chunks.push(chunk));
      await closed;
      return { text: Buffer.concat(chunks).toString('utf8'), whole };
    },
    leave,
  };
}

/** The line that the service logged when the answer was over. */
function lineOf({ requestId }: Export): Record<string, unknown> | undefined {
  const line = service.logLines.find((one) => one.includes(requestId) && one.includes('"msg":"request"'));
  return line === undefined ? undefined : (JSON.parse(line) as Record<string, unknown>);
}

/** Ended by the service within the bound, although nobody read; and what came of it does not look whole. */
async function expectCut(running: Export): Promise<void> {
  const { protocol, path } = running;
  const line = await eventually(
    () => lineOf(running),
    (one) => one !== undefined,
    { limitMs: BOUND_MS },
  );
  const { complete, code } = line ?? {};
  const { text, whole } = await running.rest();
  expect({ protocol, path, complete, code, whole }).toEqual({
    protocol,
    path,
    complete: false,
    code: 'call.revoked',
    whole: false,
  });
  expect(text).not.toMatch(/^(\{"end":true|#end)/m);
}

async function beginAll(merchant: MerchantPerson, token = String(merchant.token), protocol: Protocol = 'h2') {
  return Promise.all(EXPORTS.map((path) => begin(protocol, merchant.prefix + path, token)));
}

function sql(text: string, values?: unknown[]): Promise<unknown> {
  return withAdmin(service, (admin) => admin.query(text, values));
}

/** On the other service. */
const TAKEN: [string, (of: MerchantPerson) => Promise<unknown>][] = [
  [
    'its API key is revoked',
    (of) => new Person(other.url, of.token).send('DELETE', `${of.prefix}/api-keys/${of.apiKeyId}`),
  ],
  [
    'its API key expires',
    (of) => sql(`UPDATE api_keys SET expires_at = now() WHERE merchant_id = $1`, [of.merchantId]),
  ],
  [
    'its merchant is suspended',
    (of) => operator.send('PATCH', `/api/ops/merchants/${of.merchantId}`, { status: 'suspended' }),
  ],
  [
    'its merchant is closed',
    (of) => operator.post(`/api/ops/merchants/${of.merchantId}/close`, { merchantId: of.merchantId }),
  ],
];

describe('an export that nobody reads is cut off when', () => {
  test.each(TAKEN)('%s', async (name, take) => {
    const merchant = await newMerchant(`merchant-${String(TAKEN.findIndex(([one]) => one === name))}`);
    const exports = await beginAll(merchant);
    const answer = (await take(merchant)) as { status?: number };
    expect((answer.status ?? 200) < 300).toBe(true);
    await Promise.all(exports.map(expectCut));
  });

  test('the JWT of its reader runs out; and over HTTP/1.1 as well', async () => {
    const merchant = await newMerchant('merchant-jwt');
    const exports = await beginAll(merchant, await signJwt(merchant.merchantId, 'usage:read audit:read', 8));
    const tcp = await newMerchant('merchant-tcp', ROWS_OF_TCP);
    exports.push(...(await beginAll(tcp, tcp.token, 'h1')));
    await TAKEN[0]?.[1](tcp);
    await Promise.all(exports.map(expectCut));
  });

  test("the operator's key is revoked or expires; other operators and merchants read on, whatever became of who is read about", async () => {
    const merchant = await newMerchant('merchant-read');
    const bystander = await newMerchant('merchant-bystander');
    const path = `/api/ops/audit/export?merchantId=${merchant.merchantId}`;
    const [revoked, expiring] = [await newOperator(), await newOperator()];
    const own = await begin('h2', path, service.operatorToken);
    const theirs = await begin('h2', `${bystander.prefix}/audit/export`, String(bystander.token));
    const exports = await Promise.all([revoked, expiring].map(({ token }) => begin('h2', path, token)));
    expect((await TAKEN[3]?.[1](merchant)) as { status?: number }).toMatchObject({ status: 200 });
    await revokeOperatorKey(service.database.adminUrl, revoked.id);
    await sql(`UPDATE operator_keys SET expires_at = now() WHERE id = $1`, [expiring.id]);
    await Promise.all(exports.map(expectCut));
    for (const going of [own, theirs]) {
      expect(lineOf(going)).toBeUndefined();
      expect(await going.rest()).toMatchObject({
        whole: true,
        text: expect.stringMatching(/\n\{"end":true.+\n$/),
      });
    }
  });
});

test('an export whose answer has not begun is refused in words, not cut off', async () => {
  const merchant = await newMerchant('merchant-waiting');
  const admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  await admin.query('BEGIN; LOCK TABLE corrections IN ACCESS EXCLUSIVE MODE');
  const answer = merchant.get(EXPORTS[0]).catch((error: unknown) => error);
  const isWaiting = `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%corrections%'`;
  await until('it waits', async () => ((await sql(isWaiting)) as pg.QueryResult).rows.length > 0);
  await TAKEN[0]?.[1](merchant);
  // One that began before may be under way.
  await service.service.watch.round();
  await service.service.watch.round();
  await admin.query('ROLLBACK');
  await admin.end();
  expect(await answer).toMatchObject({ status: 403, json: { code: 'call.revoked', ended: 'api_key' } });
});

test('a Postgres that takes longer for a look than a look waits ends what runs all the same', async () => {
  const merchant = await newMerchant('merchant-slow');
  const exports = await beginAll(merchant);
  await sql(
    `ALTER FUNCTION rights_ended(jsonb) RENAME TO rights_ended_at_once;
     CREATE FUNCTION rights_ended(p_rights jsonb) RETURNS TABLE (pos integer, ended text) LANGUAGE plpgsql SECURITY DEFINER
       AS $$ BEGIN PERFORM pg_sleep(2.5); RETURN QUERY SELECT * FROM rights_ended_at_once(p_rights); END $$`,
  );
  await TAKEN[0]?.[1](merchant);
  await Promise.all(exports.map(expectCut));
  await sql(
    `DROP FUNCTION rights_ended(jsonb); ALTER FUNCTION rights_ended_at_once(jsonb) RENAME TO rights_ended`,
  );
});

function newOperator() {
  return createOperatorKey({
    adminUrl: service.database.adminUrl,
    pepper: new Secret(Buffer.from(service.env['TOKEN_PEPPER'] ?? '', 'base64')),
    environment: 'test',
    name: 'a reader',
    scopes: ['ops:audit:read'],
    expiresInDays: 1,
  });
}
