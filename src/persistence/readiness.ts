import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from './database.ts';

/** The newest migration this code was written for. A test compares it with the folder. */
export const SCHEMA_VERSION = '20261121206000_actors';

const HOW_TO_MIGRATE =
  'Run: DATABASE_ADMIN_URL=postgres://… npm run migrate -- --grant-to <login of DATABASE_URL>';

interface LoginRow {
  name: string;
  superuser: boolean;
  bypass: boolean;
  /** A member of a role that sees, or may change, rows of every merchant. */
  unbound: boolean;
  may_run: boolean;
}

/**
 * Refuses a login that row security does not bind, and one that cannot do the work.
 * @throws Error that says which and how to mend it.
 */
export async function assertSafeLogin(database: Database): Promise<void> {
  if (!(await hasSchema(database)))
    throw new Error(`The database is not migrated to ${SCHEMA_VERSION}. ${HOW_TO_MIGRATE}`);
  const [login] = await database.query<LoginRow>(Prisma.sql`
    SELECT current_user::text AS name, rolsuper AS superuser, rolbypassrls AS bypass,
      pg_has_role('merchant_bedrock_owner', 'MEMBER') OR pg_has_role('merchant_bedrock_ledger', 'MEMBER')
        OR pg_has_role('merchant_bedrock_notary', 'MEMBER') OR pg_has_role('merchant_bedrock_ops', 'MEMBER') AS unbound,
      has_function_privilege('ledger_hold(uuid, jsonb)', 'EXECUTE') AS may_run
    FROM pg_roles WHERE rolname = current_user`);
  if (login === undefined) throw new Error('The login of DATABASE_URL has no role.');
  if (login.superuser || login.bypass || login.unbound) {
    throw new Error(
      `DATABASE_URL logs in as ${login.name}, which row security does not bind (superuser, BYPASSRLS or table owner). Use a login of its own. ${HOW_TO_MIGRATE}`,
    );
  }
  if (!login.may_run)
    throw new Error(
      `DATABASE_URL logs in as ${login.name}, which lacks the role merchant_bedrock_app. ${HOW_TO_MIGRATE}`,
    );
}

/** True when the database answers and has the schema of this code. One statement. */
export async function isSchemaReady(database: Database): Promise<boolean> {
  try {
    return await isMigrated(database);
  } catch {
    return false;
  }
}

async function hasSchema(database: Database): Promise<boolean> {
  const [row] = await database.query<{ ready: boolean }>(Prisma.sql`
    SELECT to_regclass('public.merchants') IS NOT NULL AS ready`);
  return row?.ready === true && isMigrated(database);
}

async function isMigrated(database: Database): Promise<boolean> {
  const [migration] = await database.query<{ found: boolean }>(Prisma.sql`
    SELECT count(*) > 0 AS found FROM _prisma_migrations WHERE migration_name = ${SCHEMA_VERSION} AND finished_at IS NOT NULL`);
  return migration?.found === true;
}
