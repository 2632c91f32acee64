import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { Secret } from '../../src/domain/secret.ts';
import { RotationAlertsStore } from '../../src/ledger/rotation-alerts-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { onboard } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const DAY_MS = 86_400_000;

let service: TestService;
let admin: pg.Client;
let database: Database;
let store: RotationAlertsStore;
let merchants = 0;

beforeAll(async () => {
  service = await startTestService();
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  database = new Database({
    url: new Secret(service.database.url),
    connectionsMax: 4,
    statementTimeoutMs: 5_000,
    onPoolError: () => undefined,
  });
  store = new RotationAlertsStore(database);
});
afterAll(async () => {
  await database[Symbol.asyncDispose]();
  await admin.end();
  await service[Symbol.asyncDispose]();
});

/** A merchant whose stored key has been in use for so many days. */
async function aged(days: number): Promise<MerchantPerson> {
  merchants += 1;
  const merchant = await onboard(service, `merchant-${String(merchants)}`);
  await age(merchant, days);
  return merchant;
}

async function age(merchant: MerchantPerson, days: number): Promise<void> {
  await admin.query(
    `UPDATE credential_versions SET created_at = now() - make_interval(days => $2) WHERE merchant_id = $1`,
    [merchant.merchantId, days],
  );
}

/** As a day later. */
async function nextDay(): Promise<void> {
  await admin.query(`UPDATE chores SET done_at = done_at - interval '1 day'`);
}

async function alertsOf(merchant: MerchantPerson) {
  const { items } = (await merchant.get('/alerts')).json as { items: Record<string, unknown>[] };
  return items.map(({ kind, scope, scopeId, limit, percent, used, max }) =>
    [kind, scope, scopeId === merchant.credentialId, limit, percent, used, max].join(' '),
  );
}

const DUE = 'rotation credential true rotation 100';
const OVERDUE = 'rotation credential true rotation 120';

describe('a stored key that is in use for long', () => {
  test('is due at 90 days and overdue at 108: an alert each, once a version, and no other day', async () => {
    const merchant = await aged(89);
    expect(await store.raise(90)).toBe(0);
    await age(merchant, 90);
    for (const raised of [1, 0]) {
      await nextDay();
      expect(await store.raise(90)).toBe(raised);
      expect(await alertsOf(merchant)).toEqual([`${DUE} 90 90`]);
    }
    const late = await aged(109);
    await nextDay();
    expect(await store.raise(90)).toBe(1);
    expect(await alertsOf(late)).toEqual([`${OVERDUE} 109 90`]);
    // With a stricter rule the first one is overdue too: due was told before.
    await nextDay();
    expect(await store.raise(75)).toBe(1);
    expect(await alertsOf(merchant)).toEqual([`${OVERDUE} 90 75`, `${DUE} 90 90`]);
    await nextDay();
    expect(await store.raise(75)).toBe(0);
    // A new version begins anew.
    await age(merchant, 91);
    await nextDay();
    expect(await store.raise(90)).toBe(1);
  });

  test('is told to webhooks and to the log as credential.rotation_due, and to nobody who did not ask', async () => {
    const merchant = await aged(0);
    const made = await merchant.post('/webhooks', {
      url: 'http://127.0.0.1:49151/x',
      events: ['credential.rotation_due'],
    });
    const other = await merchant.post('/webhooks', {
      url: 'http://127.0.0.1:49151/x',
      events: ['alert.threshold'],
    });
    expect([made.status, other.status]).toEqual([201, 201]);
    await age(merchant, 95);
    await nextDay();
    expect(await store.raise(90)).toBe(1);
    const { rows } = await admin.query<{ webhook_id: string | null; event: string; body: string }>(
      `SELECT webhook_id, event, body FROM webhook_deliveries WHERE merchant_id = $1 ORDER BY webhook_id NULLS LAST`,
      [merchant.merchantId],
    );
    expect(rows.map(({ webhook_id, event }) => [webhook_id, event])).toEqual([
      [made.json['id'], 'credential.rotation_due'],
      [null, 'credential.rotation_due'],
    ]);
    const { rows: facts } = await admin.query<{ created_at: Date }>(
      `SELECT created_at::timestamptz(3) FROM credential_versions WHERE merchant_id = $1`,
      [merchant.merchantId],
    );
    expect(JSON.parse(rows[0]?.body ?? '')).toMatchObject({
      type: 'credential.rotation_due',
      data: {
        kind: 'rotation',
        scope: 'credential',
        scopeId: merchant.credentialId,
        periodStartsAt: facts[0]?.created_at.toISOString(),
        percent: 100,
        used: 95,
        max: 90,
      },
    });
  });

  test('of all replicas one looks, once a day; more than one part in a round', async () => {
    for (let index = 0; index < 5; index += 1) await aged(200);
    await nextDay();
    const rounds = await Promise.all(Array.from({ length: 4 }, () => store.raise(90, 2)));
    expect(rounds.filter((raised) => raised !== undefined)).toEqual([5]);
    expect(await store.raise(90)).toBeUndefined();
    await service.service.remindOfRotation();
    await nextDay();
    await service.service.remindOfRotation();
    expect(service.logLines.filter((line) => line.includes('age of stored keys looked at'))).toHaveLength(1);
  });

  test('a day that was not ended is gone on with when its time is over, by one; nobody is told twice', async () => {
    const people = [await aged(200), await aged(200), await aged(200)];
    let asked = 0;
    // The process dies after its first part.
    const dying = new RotationAlertsStore({
      query: (sql) => {
        asked += 1;
        return asked === 1 ? database.query(sql) : Promise.reject(new Error('gone'));
      },
    });
    const told = async () => (await Promise.all(people.map(alertsOf))).flat().length;
    // Some day was done before.
    await admin.query(`INSERT INTO chores VALUES ('rotation', now()) ON CONFLICT DO NOTHING`);
    await nextDay();
    await expect(dying.raise(90, 1)).rejects.toThrow('gone');
    expect(await told()).toBe(1);
    // It may only be slow.
    expect(await store.raise(90)).toBeUndefined();
    await admin.query(`UPDATE chores SET leased_until = clock_timestamp()`);
    const others = await Promise.all([store.raise(90, 1), store.raise(90, 1), store.raise(90, 1)]);
    expect(others.filter((raised) => raised !== undefined)).toEqual([2]);
    expect(await told()).toBe(3);
    expect(await store.raise(90)).toBeUndefined();
  });

  test('two that do one part tell each age once', async () => {
    const merchant = await aged(200);
    await nextDay();
    const { rows } = await admin.query<{ raised: number }>('SELECT rotation_alerts(90, 1, true) AS raised');
    expect(rows).toEqual([{ raised: 1 }]);
    expect(await store.raise(90)).toBeUndefined();
    await admin.query(`UPDATE chores SET leased_until = clock_timestamp()`);
    // The one that was slow goes on, beside the one that took over.
    const both = [store.raise(90), admin.query('SELECT rotation_alerts(90, 100, false)')];
    await Promise.all(both);
    expect(await alertsOf(merchant)).toEqual([`${OVERDUE} 200 90`]);
  });

  test('a deleted one is not told', async () => {
    const merchant = await aged(300);
    await merchant.send('DELETE', `/credentials/${merchant.credentialId}`);
    await nextDay();
    expect(await store.raise(90)).toBe(0);
  });
});

describe('rotationDueAt', () => {
  test('is 90 days after the current version, or as the setting says; null where it says never', async () => {
    const merchant = await aged(10);
    const dueIn = async (person: MerchantPerson) => {
      const [{ items }, one] = await Promise.all([
        person.get('/credentials').then(({ json }) => json as { items: { rotationDueAt: string | null }[] }),
        person.get(`/credentials/${person.credentialId}`),
      ]);
      expect(one.json['rotationDueAt']).toBe(items[0]?.rotationDueAt);
      const due = items[0]?.rotationDueAt;
      return due == null ? due : Math.round((Date.parse(due) - Date.now()) / DAY_MS);
    };
    expect(await dueIn(merchant)).toBe(80);
    await using never = await startTestService({ CREDENTIAL_ROTATION_DAYS: '0' });
    expect(await dueIn(await onboard(never, 'merchant-a'))).toBeNull();
    await never.service.remindOfRotation();
    const { rows } = await admin.query('SELECT 1 FROM chores');
    expect(rows).toHaveLength(1);
  });
});
