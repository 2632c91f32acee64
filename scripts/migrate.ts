/** Applies the migrations of prisma/migrations. The only command that needs an administrator's login. */
import path from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { applyMigrations } from '../src/persistence/migrations.ts';

const HELP = `Usage: DATABASE_ADMIN_URL=postgres://... npm run migrate -- [--grant-to ROLE]

Brings the database to the schema of this version. Safe to repeat.

  DATABASE_ADMIN_URL  a login that may create roles, tables and functions (the service itself never uses it)
  --grant-to ROLE     gives an existing login what the service needs, and nothing more

Example, on a new database:
  CREATE ROLE merchant_bedrock_service LOGIN PASSWORD '...';      -- in psql, once
  DATABASE_ADMIN_URL=postgres://postgres:...@db/bedrock npm run migrate -- --grant-to merchant_bedrock_service
  # then DATABASE_URL=postgres://merchant_bedrock_service:...@db/bedrock in .env
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { 'grant-to': { type: 'string' }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help === true) {
    console.log(HELP);
    return 0;
  }
  const adminUrl = process.env['DATABASE_ADMIN_URL'];
  if (adminUrl === undefined || adminUrl === '') {
    console.error(`DATABASE_ADMIN_URL is not set.\n\n${HELP}`);
    return 2;
  }
  const applied = await applyMigrations(adminUrl, path.join(import.meta.dirname, '../prisma'));
  console.log(applied.length === 0 ? 'The database is up to date.' : `Applied: ${applied.join(', ')}`);
  const role = values['grant-to'];
  if (role !== undefined) {
    const client = new pg.Client({ connectionString: adminUrl });
    await client.connect();
    try {
      await client.query(`GRANT merchant_bedrock_app TO ${pg.escapeIdentifier(role)}`);
      console.log(`${role} may now run the service.`);
    } finally {
      await client.end();
    }
  }
  return 0;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(`Not migrated: ${error instanceof Error ? error.message : 'unknown reason'}`);
    process.exitCode = 1;
  },
);
