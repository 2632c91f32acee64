import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import { Person } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

/** How long an answer about the database is kept. */
const KEPT_MS = 1_000;

/** Stands still, so that a slow machine asks no oftener. */
let nowMs = 0;
const monotonic = { now: () => nowMs };
let service: TestService;
let admin: pg.Client;

beforeAll(async () => {
  service = await startTestService({}, undefined, { monotonic });
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
  // Whoever asks for the newest migration is counted, in Postgres, also within what is rolled back.
  await admin.query(`
    CREATE SEQUENCE asked MINVALUE 0;
    GRANT USAGE ON SEQUENCE asked TO PUBLIC;
    ALTER TABLE _prisma_migrations RENAME TO migrations;
    CREATE VIEW _prisma_migrations AS
      WITH counted AS MATERIALIZED (SELECT nextval('asked')) SELECT migrations.* FROM migrations, counted;
    GRANT SELECT ON _prisma_migrations TO PUBLIC`);
});

afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

async function timesAsked(): Promise<number> {
  const { rows } = await admin.query<{ last_value: string; is_called: boolean }>(
    'SELECT last_value, is_called FROM asked',
  );
  return rows[0]?.is_called === true ? Number(rows[0].last_value) + 1 : 0;
}

async function statusesOf(times: number): Promise<number[]> {
  const anyone = new Person(service.url);
  const answers = await Promise.all(Array.from({ length: times }, () => anyone.get('/readyz')));
  return [...new Set(answers.map(({ status }) => status))];
}

test('however many ask whether the service is ready, the database is asked once a second', async () => {
  expect(await timesAsked()).toBe(0);
  expect(await statusesOf(500)).toEqual([200]);
  expect(await timesAsked()).toBe(1);
  nowMs += KEPT_MS;
  expect(await statusesOf(100)).toEqual([200]);
  expect(await timesAsked()).toBe(2);
  await admin.end();
});

test('readiness fails when a second has passed without the database, and is back as soon', async () => {
  const { name } = service.database;
  const cluster = new pg.Client({ connectionString: process.env['TEST_ADMIN_URL'] ?? '' });
  await cluster.connect();
  expect(await statusesOf(1)).toEqual([200]);
  await cluster.query(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS false`);
  await cluster.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  nowMs += KEPT_MS;
  expect(await statusesOf(20)).toEqual([503]);
  await cluster.query(`ALTER DATABASE "${name}" ALLOW_CONNECTIONS true`);
  await cluster.end();
  nowMs += KEPT_MS;
  expect(await statusesOf(20)).toEqual([200]);
});
