/** Applies the migrations of prisma/migrations. The only command besides operator-key that needs an administrator's login. */
import path from 'node:path';
import pg from 'pg';
import { SECRET_SETTINGS } from '../src/config/secret-settings.ts';
import { loadDotEnv } from '../src/config/env.ts';
import { applyMigrations } from '../src/persistence/migrations.ts';
import { readArguments } from './cli/arguments.ts';
import { Failure, nameOf, print, run, shown, UsageError } from './cli/run.ts';

const HELP = `Usage: DATABASE_ADMIN_URL=postgres://... npm run migrate -- [--grant-to ROLE]

Brings the database to the schema of this version. Safe to repeat.

  DATABASE_ADMIN_URL  a login that may create roles, tables and functions (the service itself never uses it); also from .env
  --grant-to ROLE     gives an existing login what the service needs, and nothing more

Example, on a new database:
  CREATE ROLE merchant_bedrock_service LOGIN PASSWORD '...';      -- in psql, once
  DATABASE_ADMIN_URL=postgres://postgres:...@db/bedrock npm run migrate -- --grant-to merchant_bedrock_service
  # then DATABASE_URL=postgres://merchant_bedrock_service:...@db/bedrock in .env

Exit code: 0 done; 1 refused by the database; 2 bad input.
`;

async function main(): Promise<void> {
  const { values: flags, problems } = readArguments(
    { 'grant-to': { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    process.argv.slice(2),
  );
  if (flags.help === true && problems.length === 0) {
    await print(HELP, '');
    return;
  }
  loadDotEnv();
  const adminUrl = process.env['DATABASE_ADMIN_URL'] ?? '';
  if (adminUrl === '')
    problems.push("DATABASE_ADMIN_URL is missing: a postgres:// URL of an administrator's login");
  else if (!SECRET_SETTINGS.databaseUrl.read.safeParse(adminUrl).success)
    problems.push('DATABASE_ADMIN_URL must be a postgres:// URL');
  if (problems.length > 0) throw new UsageError(problems);

  await connected(adminUrl, async () => {
    const applied = await applyMigrations(adminUrl, path.join(import.meta.dirname, '../prisma'));
    await print(
      applied.length === 0 ? 'The database is up to date.\n' : `Applied: ${applied.join(', ')}\n`,
      'The migrations were applied.',
    );
  });
  const role = flags['grant-to'];
  if (role === undefined) return;
  await connected(adminUrl, (client) =>
    client.query(`GRANT merchant_bedrock_app TO ${pg.escapeIdentifier(role)}`),
  );
  await print(`${role} may now run the service.\n`, 'The role was granted.');
}

/** With a connection of its own; first of all it tells whether there is a database to talk to. */
async function connected(adminUrl: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: adminUrl, connectionTimeoutMillis: 10_000 });
  try {
    await client.connect();
    await work(client);
  } catch (error) {
    if (error instanceof Failure) throw error;
    // Only what the server said: an error from below may hold the URL.
    const why = error instanceof pg.DatabaseError ? shown(error.message) : nameOf(error);
    throw new Failure(`Not migrated: ${why}`);
  } finally {
    await client.end().catch(() => undefined);
  }
}

run('migrate', 'Not migrated', main);
