import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { Person, converseBody, onboard } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

interface Key {
  id: string;
  token: string;
  name: string;
  scopes: string[];
  expiresAt: string;
}
interface Rolled extends Key {
  replaces: { id: string; expiresAt: string };
}

let service: TestService;
let admin: pg.Client;
let merchant: MerchantPerson;

beforeAll(async () => {
  service = await startTestService();
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  merchant = await onboard(service, 'merchant-a');
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
});

async function newKey(days = 30, scopes = ['invoke', 'usage:read']): Promise<Key> {
  const answer = await merchant.post('/api-keys', { name: 'ci', scopes, expiresInDays: days });
  expect(answer.status).toBe(201);
  return answer.json as unknown as Key;
}

async function roll(key: Pick<Key, 'id'>, body: object = {}): Promise<Rolled> {
  const answer = await merchant.post(`/api-keys/${key.id}/roll`, body);
  expect({ status: answer.status, text: answer.status === 201 ? '' : answer.text }).toEqual({
    status: 201,
    text: '',
  });
  return answer.json as unknown as Rolled;
}

const within = (date: string, expectedMs: number) =>
  Math.abs(Date.parse(date) - expectedMs) < 5 * 60_000 ? 'as expected' : date;
const chat = (token: string) =>
  new Person(service.url, token).post(
    `${merchant.prefix}/model/${MODEL}/converse`,
    converseBody('hello', 10),
  );

describe('a roll', () => {
  test('gives a successor with the same name, scopes and life; both work during the overlap', async () => {
    const old = await newKey();
    const made = await roll(old);
    expect(made).toMatchObject({ name: 'ci', scopes: old.scopes, replaces: { id: old.id } });
    expect(made.id).not.toBe(old.id);
    expect(within(made.expiresAt, Date.now() + 30 * DAY_MS)).toBe('as expected');
    expect(within(made.replaces.expiresAt, Date.now() + DAY_MS)).toBe('as expected');
    for (const { token } of [old, made]) expect((await chat(token)).status).toBe(200);
    // And again, when the successor is due: its life is that of the first.
    const next = await roll(made, { overlapHours: 1 });
    expect(within(next.expiresAt, Date.now() + 30 * DAY_MS)).toBe('as expected');
    expect(within(next.replaces.expiresAt, Date.now() + HOUR_MS)).toBe('as expected');
  });

  test('without overlap the old key ends at once; the token is nowhere but in the answer', async () => {
    const old = await newKey();
    expect((await chat(old.token)).status).toBe(200);
    const made = await roll(old, { overlapHours: 0 });
    // Remembered by this process a moment ago, and refused all the same.
    expect((await chat(old.token)).status).toBe(403);
    expect((await chat(made.token)).status).toBe(200);
    const listed = (await merchant.get('/api-keys')).text;
    expect(listed).not.toContain(made.token);
    expect(listed).toContain(`"rolledTo":"${made.id}"`);
  });

  test('never lengthens the life of the old key', async () => {
    const old = await newKey(1);
    const made = await roll(old, { overlapHours: 168 });
    expect(made.replaces.expiresAt).toBe(old.expiresAt);
    expect(within(made.expiresAt, Date.now() + DAY_MS)).toBe('as expected');
  });

  test('is in the audit trail, with the successor', async () => {
    const old = await newKey();
    const made = await roll(old);
    const { rows } = await admin.query<{ actor: string; body: string }>(
      `SELECT actor, body FROM audit_events WHERE action = 'token.rolled' AND resource = $1`,
      [`api-key/${old.id}`],
    );
    expect(rows).toHaveLength(1);
    expect(rows[0]?.actor).toBe(`api-key:${merchant.apiKeyId}`);
    expect(JSON.parse(rows[0]?.body ?? '')).toMatchObject({ successor: made.id, scopes: old.scopes });
  });

  test('happens once: a second one names the successor, of many at once one wins', async () => {
    const old = await newKey();
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => merchant.post(`/api-keys/${old.id}/roll`, {})),
    );
    const made = answers.filter(({ status }) => status === 201);
    expect(made).toHaveLength(1);
    for (const { status, json } of answers.filter((answer) => answer !== made[0])) {
      expect(status).toBe(409);
      expect(json).toMatchObject({ code: 'api_key.rolled_before', successorId: made[0]?.json['id'] });
    }
    const { rows } = await admin.query('SELECT expires_at FROM api_keys WHERE id = $1', [old.id]);
    expect((rows as { expires_at: Date }[])[0]?.expires_at.toISOString()).toBe(
      (made[0]?.json as unknown as Rolled).replaces.expiresAt,
    );
  });

  test('needs every scope of the key: nobody gains one by it', async () => {
    const old = await newKey(30, ['invoke', 'credentials:write']);
    const clerk = await newKey(30, ['invoke', 'api-keys:write']);
    const answer = await new Person(service.url, clerk.token).post(
      `${merchant.prefix}/api-keys/${old.id}/roll`,
      {},
    );
    expect(answer.status).toBe(403);
    expect(answer.json).toMatchObject({ code: 'auth.insufficient_scope', scope: 'credentials:write' });
  });

  test('of a key that is revoked, expired, unknown or another merchant’s is refused', async () => {
    const revoked = await newKey();
    await merchant.send('DELETE', `/api-keys/${revoked.id}`);
    const expired = await newKey();
    await admin.query(`UPDATE api_keys SET expires_at = now() WHERE id = $1`, [expired.id]);
    const other = await onboard(service, 'merchant-b');
    for (const [id, status, code] of [
      [revoked.id, 409, 'api_key.not_usable'],
      [expired.id, 409, 'api_key.not_usable'],
      ['000000000000', 404, 'api_key.not_found'],
      [other.apiKeyId, 404, 'api_key.not_found'],
      ['x', 404, 'api_key.not_found'],
    ] as const) {
      const answer = await merchant.post(`/api-keys/${id}/roll`, {});
      expect(answer).toMatchObject({ status, json: { code } });
    }
    for (const overlapHours of [-1, 169, 1.5, '24'])
      expect((await merchant.post(`/api-keys/${merchant.apiKeyId}/roll`, { overlapHours })).status).toBe(400);
  });
});
