import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { newTestDatabase } from '../support/database.ts';

/**
 * What the database's own catalog says about isolation, past what row-security.test.ts says of tables: nothing that could go around a
 * policy is there, and whoever adds something of the kind finds a failing test.
 */

/** Tables with rows of merchants. One that is not here fails: it needs its policy, its grants, and a row in row-security.test.ts. */
const OF_MERCHANTS = [
  'alerts',
  'api_keys',
  'audit_events',
  'audit_heads',
  'audit_leaves',
  'calls',
  'corrections',
  'counter_openings',
  'counters',
  'credential_rotations',
  'credential_versions',
  'credentials',
  'idempotency_keys',
  'limit_hits',
  'limits',
  'merchants',
  'secret_intents',
  'usage_days',
  'usage_openings',
  'webhook_deliveries',
  'webhooks',
];
/** Tables with nothing of any merchant, and what the service may do with them. */
const OF_NOBODY: Record<string, string> = {
  _prisma_migrations: 'SELECT',
  // One root over all chains, and its signature: which chains there are, the leaves say, and those are the merchants'.
  audit_checkpoints: 'SELECT',
  // Inner nodes of the newest tree: hashes of salted hashes, of all chains at once. A merchant's path through it comes from audit_checkpoint_proof().
  audit_trees: '',
  // When the replicas last did what one does for all.
  chores: '',
  operator_keys: '',
  plans: 'SELECT',
  prices: 'SELECT',
  processes: '',
};
/** What the service may do besides SELECT with merchants' tables; columns in prisma/migrations. */
const WRITES: Record<string, string> = {
  api_keys: 'INSERT',
  credential_versions: 'INSERT',
  credentials: 'INSERT',
  merchants: 'INSERT',
};

let database: Awaited<ReturnType<typeof newTestDatabase>>;
let admin: pg.Client;

beforeAll(async () => {
  database = await newTestDatabase();
  admin = new pg.Client({ connectionString: database.adminUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await database[Symbol.asyncDispose]();
});

const OURS = `(SELECT oid FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp)')`;
const PRIVILEGES = `ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES']`;

/** Every check answers with what is wrong: nothing, when all is well. */
const CHECKS: Record<string, { sql: string; broken: string }> = {
  'a table with a merchant in it that is on neither list': {
    sql: `SELECT c.oid::regclass::text AS wrong FROM pg_class c WHERE c.relnamespace IN ${OURS} AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
      AND c.relname <> ALL ('{${[...OF_MERCHANTS, ...Object.keys(OF_NOBODY)].join(',')}}')`,
    broken: 'CREATE TABLE notes (merchant_id text, note text)',
  },
  'a table of nobody that has a merchant in it': {
    sql: `SELECT c.relname AS wrong FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname ~ 'merchant' AND NOT a.attisdropped
      WHERE c.relnamespace IN ${OURS} AND c.relname = ANY ('{${Object.keys(OF_NOBODY).join(',')}}')`,
    broken: 'ALTER TABLE plans ADD COLUMN merchant_id text',
  },
  'a table of a merchant, or a partition of one, without forced row security': {
    sql: `SELECT c.relname AS wrong FROM pg_class c WHERE c.relnamespace IN ${OURS} AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
      AND (c.relispartition OR c.relname = ANY ('{${OF_MERCHANTS.join(',')}}'))`,
    broken: `CREATE TABLE calls_2099_01 PARTITION OF calls FOR VALUES FROM ('fffffff0-0000-7000-8000-000000000000') TO ('fffffff1-0000-7000-8000-000000000000')`,
  },
  'a policy without USING or WITH CHECK': {
    sql: `SELECT polrelid::regclass || '.' || polname AS wrong FROM pg_policy WHERE polname = 'tenant_rows' AND (polqual IS NULL OR polwithcheck IS NULL)`,
    broken: `DROP POLICY tenant_rows ON limits; CREATE POLICY tenant_rows ON limits USING (merchant_id = (SELECT tenant()))`,
  },
  'a key of a merchant’s table that does not begin with the merchant': {
    sql: `SELECT i.indexrelid::regclass::text AS wrong FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
      WHERE i.indisunique AND c.relname = ANY ('{${OF_MERCHANTS.join(',')}}') AND c.relname <> 'merchants'
        -- API keys are looked up by their id before anyone knows whose they are; it is random and ours. ExternalIds are 256 random bits that the
        -- service draws and nobody can choose, so that one exists tells nobody anything; and two merchants with the same one would be each other's deputy.
        AND i.indexrelid::regclass::text NOT IN ('api_keys_id_key', 'credentials_external_id')
        AND (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = i.indkey[0]) <> 'merchant_id'`,
    broken: 'CREATE UNIQUE INDEX names ON credentials (name)',
  },
  'a view, which reads with its owner’s rights, or a materialised view, which has no policies': {
    sql: `SELECT oid::regclass::text AS wrong FROM pg_class WHERE relnamespace IN ${OURS} AND (relkind = 'm' OR (relkind = 'v' AND NOT coalesce(reloptions @> '{security_invoker=true}', false)))`,
    broken: 'CREATE MATERIALIZED VIEW totals AS SELECT merchant_id FROM calls',
  },
  'a function that is for everyone': {
    sql: `SELECT oid::regprocedure::text AS wrong FROM pg_proc WHERE pronamespace IN ${OURS} AND has_function_privilege('public', oid, 'EXECUTE')`,
    broken: `CREATE FUNCTION helper() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
  },
  'a table, a view or a sequence that is for everyone': {
    sql: `SELECT oid::regclass::text AS wrong FROM pg_class c WHERE relnamespace IN ${OURS} AND EXISTS (SELECT 1 FROM aclexplode(c.relacl) WHERE grantee = 0)`,
    broken: 'GRANT SELECT ON plans TO PUBLIC',
  },
  'a sequence that the service may draw from or set': {
    sql: `SELECT c.name AS wrong FROM (SELECT oid::regclass::text AS name, oid FROM pg_class WHERE relkind = 'S' OFFSET 0) c WHERE has_sequence_privilege('merchant_bedrock_service', c.oid, 'USAGE, SELECT, UPDATE')`,
    broken: 'GRANT USAGE ON SEQUENCE prices_id_seq TO merchant_bedrock_app',
  },
  'a schema in which the service may make things, or an archive that it may enter': {
    sql: `SELECT nspname AS wrong FROM pg_namespace WHERE oid IN ${OURS} AND (has_schema_privilege('merchant_bedrock_service', oid, 'CREATE')
      OR (nspname = 'archive' AND has_schema_privilege('merchant_bedrock_service', oid, 'USAGE')))`,
    broken: 'GRANT USAGE ON SCHEMA archive TO merchant_bedrock_app',
  },
  'a default that will give privileges on what is made later': {
    sql: `SELECT defaclrole::regrole::text AS wrong FROM pg_default_acl`,
    broken: 'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO merchant_bedrock_app',
  },
  'a function with its owner’s rights whose search path is not fixed, or that looks into pg_temp first': {
    sql: `SELECT oid::regprocedure::text AS wrong FROM pg_proc WHERE pronamespace IN ${OURS} AND prosecdef
      AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, public, pg_temp'], false)`,
    broken: 'ALTER FUNCTION find_api_key(text) RESET search_path',
  },
  'a function with its owner’s rights outside of the schema of those that are listed': {
    sql: `SELECT oid::regprocedure::text AS wrong FROM pg_proc WHERE prosecdef AND pronamespace IN ${OURS} AND pronamespace <> 'public'::regnamespace`,
    broken: `CREATE FUNCTION archive.look() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'`,
  },
  'a trigger or a rule whose function is not ours, or an event trigger': {
    sql: `SELECT tgname AS wrong FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid WHERE NOT tgisinternal AND p.pronamespace <> 'public'::regnamespace
      UNION ALL SELECT rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE c.relnamespace IN ${OURS} AND c.relkind IN ('r', 'p') UNION ALL SELECT evtname FROM pg_event_trigger`,
    broken: 'CREATE RULE nothing AS ON UPDATE TO plans DO INSTEAD NOTHING',
  },
  'a publication, which sends rows past every policy': {
    sql: 'SELECT pubname AS wrong FROM pg_publication',
    broken: 'CREATE PUBLICATION everything FOR ALL TABLES',
  },
  'a role of ours that row security does not bind, or that is a member of one that owns': {
    sql: `SELECT rolname AS wrong FROM pg_roles WHERE rolname LIKE 'merchant_bedrock%' AND (rolsuper OR rolbypassrls OR rolreplication)
      UNION ALL SELECT m.member::regrole::text FROM pg_auth_members m WHERE m.member IN ('merchant_bedrock_service'::regrole, 'merchant_bedrock_app'::regrole)
        AND m.roleid <> 'merchant_bedrock_app'::regrole`,
    broken: 'GRANT merchant_bedrock_ops TO merchant_bedrock_service',
  },
};

async function wrong(sql: string): Promise<string[]> {
  const { rows } = await admin.query<{ wrong: string }>(sql);
  return rows.map((row) => row.wrong);
}

describe.each(Object.entries(CHECKS))('%s', (_what, { sql, broken }) => {
  test('there is none', async () => {
    expect(await wrong(sql)).toEqual([]);
  });

  test('and it would be found', async () => {
    await admin.query('BEGIN');
    try {
      await admin.query(broken);
      expect(await wrong(sql)).not.toEqual([]);
    } finally {
      await admin.query('ROLLBACK');
    }
  });
});

test('the service may do with each table what is written down, and nothing with a partition', async () => {
  const { rows } = await admin.query<{ name: string; may: string }>(
    `SELECT c.relname AS name, c.relispartition AS partition,
       coalesce((SELECT string_agg(p, ' ') FROM unnest(${PRIVILEGES}) p WHERE has_table_privilege('merchant_bedrock_service', c.oid, p)), '') AS may
     FROM pg_class c WHERE c.relnamespace IN ${OURS} AND c.relkind IN ('r', 'p') AND (NOT c.relispartition OR c.relname LIKE 'calls%')`,
  );
  const may = Object.fromEntries(rows.map((row) => [row.name, row.may]));
  const partitions = rows.filter(({ name }) => name.startsWith('calls_'));
  expect(partitions.length).toBeGreaterThan(10);
  expect(may).toEqual({
    ...OF_NOBODY,
    ...Object.fromEntries(
      OF_MERCHANTS.map((name) => [name, ['SELECT', ...(name in WRITES ? [WRITES[name]] : [])].join(' ')]),
    ),
    webhooks: '',
    ...Object.fromEntries(partitions.map(({ name }) => [name, ''])),
  });
});
