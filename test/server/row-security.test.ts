import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Prisma } from '../../src/generated/prisma/client.ts';
import { Database } from '../../src/persistence/database.ts';
import { assertSafeLogin } from '../../src/persistence/readiness.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';

/** Every function that runs with its owner's rights. A new one is a decision: it goes on this list with a reason in prisma/README.md. */
const DEFINERS = [
  'actor_must_hold',
  'answer_keep',
  'answer_keep_under',
  'answers_expired',
  'answers_sweep',
  'api_key_rehash',
  'api_key_revoke',
  'api_key_roll',
  'audit_append',
  'audit_checkpoint_begin',
  'audit_checkpoint_behind',
  'audit_checkpoint_copied',
  'audit_checkpoint_proof',
  'audit_checkpoint_sign',
  'audit_checkpoints_take',
  'call_resolve',
  'calls_of_month',
  'counters_expired',
  'counters_sweep',
  'credential_freeze',
  'credential_proven',
  'data_keys_elsewhere',
  'data_keys_rewrapped',
  'data_keys_take',
  'find_api_key',
  'find_operator_key',
  'keys_below_pepper',
  'keys_status',
  'ledger_hold',
  'ledger_make_partitions',
  'ledger_rerate',
  'ledger_retire',
  'ledger_settle',
  'ledger_sweep',
  'ledger_void_unsent',
  'limit_hits_expired',
  'merchant_change',
  'merchant_close',
  'named_limits_replace',
  'operator_key_rehash',
  'ops_merchants',
  'ops_unknown',
  'ops_usage_page',
  'plan_create',
  'prices_import',
  'process_alive',
  'reconcile_claim',
  'rights_ended',
  'rotation_alerts',
  'rotation_approve_account',
  'rotation_begin',
  'rotation_fail',
  'rotation_key_deletion',
  'rotation_key_done',
  'rotation_key_noted',
  'rotation_labelled',
  'rotation_promote',
  'rotation_put_off',
  'rotation_retire',
  'rotation_rollback',
  'rotation_sealed',
  'rotation_take',
  'rotations_changed',
  'rotations_due',
  'rotations_due_past',
  'rotations_over',
  'secret_announce',
  'secret_commit',
  'secret_forget',
  'secret_leftovers_due',
  'secret_leftovers_take',
  'secrets_orphaned',
  'webhook_create',
  'webhook_delete',
  'webhook_deliveries_due',
  'webhook_deliveries_take',
  'webhook_delivery_done',
  'webhook_replay',
  'webhook_reseal',
  'webhook_test',
  'webhooks_sealed_otherwise',
];
/** Those that see past the tenant, because a batch holds calls of many merchants. */
const LEDGER = [
  'call_resolve',
  'ledger_hold',
  'ledger_settle',
  'ledger_sweep',
  'ledger_void_unsent',
  'process_alive',
  'reconcile_claim',
  'rights_ended',
  'rotation_alerts',
];
/** Those of the role that makes checkpoints: it sees where chains end, and nothing else of merchants. */
const NOTARY = [
  'audit_checkpoint_begin',
  'audit_checkpoint_behind',
  'audit_checkpoint_copied',
  'audit_checkpoint_proof',
  'audit_checkpoint_sign',
  'audit_checkpoints_take',
  'audit_tree_write',
];
const WRITTEN_BY_FUNCTIONS_ONLY = [
  'calls',
  'counters',
  'limits',
  'limit_hits',
  'alerts',
  'idempotency_keys',
  'corrections',
  'usage_days',
  'counter_openings',
  'usage_openings',
  'webhooks',
  'webhook_deliveries',
  'secret_intents',
  'credential_rotations',
  'audit_events',
  'audit_heads',
  'audit_checkpoints',
  'audit_leaves',
  'audit_trees',
  'operator_keys',
];
const [A, B] = ['merchant-a', 'merchant-b'] as MerchantId[] as [MerchantId, MerchantId];

/** Roles of this file: they belong to the whole Postgres. */
const MEMBER = `member_${randomBytes(6).toString('hex')}`;

interface Copy extends AsyncDisposable {
  database: TestDatabase;
  admin: pg.Client;
  login: pg.Client;
}

let copy: Copy;
let database: TestDatabase;
let admin: pg.Client;
let login: pg.Client;

beforeAll(async () => {
  copy = await newCopy();
  ({ database, admin, login } = copy);
});
afterAll(async () => {
  await copy[Symbol.asyncDispose]();
});

/** A database of its own with something of both merchants in every table. */
async function newCopy(): Promise<Copy> {
  const database = await newTestDatabase();
  const admin = new pg.Client({ connectionString: database.adminUrl });
  const login = new pg.Client({ connectionString: database.url });
  await Promise.all([admin.connect(), login.connect()]);
  for (const merchant of [A, B]) {
    await admin.query(`
      INSERT INTO merchants (id, name) VALUES ('${merchant}', 'x');
      INSERT INTO credentials (merchant_id, id, name, kind, region, key_hint, current_version, created_by)
        VALUES ('${merchant}', 'cred_' || repeat('0', 22), 'x', 'access-key', 'us-east-1', 'x', 1, 'x');
      INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
        VALUES ('${merchant}', 'cred_' || repeat('0', 22), 1, 'current', 'x', 'x', 'x', 'x');
      INSERT INTO secret_intents (merchant_id, secret_name) VALUES ('${merchant}', 'x');
      INSERT INTO credential_rotations (merchant_id, credential_id, version, replaces, state, mode, secret_name, secret_version_id, started_by, started_at, changed_at)
        VALUES ('${merchant}', 'cred_' || repeat('0', 22), 2, 1, 'pending', 'iam', 'x', 'x', 'x', now(), now());
      INSERT INTO api_keys (merchant_id, id, name, environment, secret_hash, pepper_version, scopes, created_by, expires_at)
        VALUES ('${merchant}', '${merchant === A ? 'a' : 'b'}' || repeat('0', 11), 'x', 'test', decode(repeat('00', 32), 'hex'), 1, '{}', 'x', now() + interval '1 day');
      INSERT INTO usage_days (merchant_id, end_user, day, model_id, credential_id, credential_source, api_key_id, region, latencies)
        VALUES ('${merchant}', '*', now(), 'x', '', 'direct', '', 'us-east-1', latency_histogram('{}'));
      INSERT INTO limits (merchant_id, scope, scope_id, spec, set_by) VALUES ('${merchant}', 'merchant', '', '{}', 'x');
      INSERT INTO counters (merchant_id, scope, scope_id, period, starts_at) VALUES ('${merchant}', 'merchant', '', 'total', 'epoch');
      INSERT INTO limit_hits VALUES ('${merchant}', now(), 'merchant', 'x', 'hard', 1);
      INSERT INTO counter_openings VALUES ('${merchant}', '2026-01-01', 'merchant', '', 'total', 'epoch', 1, 0, 0, 0, 0);
      INSERT INTO usage_openings SELECT *, '2026-01-01' FROM usage_days WHERE merchant_id = '${merchant}';
      INSERT INTO webhooks (merchant_id, id, url, sealed, events, created_by)
        VALUES ('${merchant}', 'wh_' || repeat('0', 22), 'x', 'x', '{alert.threshold}', 'x');
      -- Fills webhook_deliveries.
      INSERT INTO alerts (merchant_id, id, kind, scope, scope_id, limit_name, starts_at, threshold, used)
        VALUES ('${merchant}', uuid_v7(), 'threshold', 'merchant', '', 'x', now(), 50, 1);
      INSERT INTO idempotency_keys (merchant_id, key_hash, body_hash, call_id, created_at)
        VALUES ('${merchant}', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), uuid_v7(), now());
      INSERT INTO prices (model_id, region, profile, tier, valid_from, source, source_date, imported_by)
        VALUES ('x', '*', 'in-region', 'standard', now() + interval '${merchant === A ? '1' : '2'} days', 'x', now(), 'x');
      INSERT INTO corrections (merchant_id, call_id, price_id, delta_nano, reason, created_by) SELECT '${merchant}', uuid_v7(), min(id), 0, 'x', 'x' FROM prices;
      INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline)
        VALUES ('${merchant}', uuid_v7(), 'held', 'converse', 'x', 'us-east-1', 'direct', 'x', 'x', now(), now());
      INSERT INTO audit_leaves VALUES ('${merchant}', 1, 1, sha256('x'));
      SELECT audit_append('${merchant}', 'x', 'x', 'x', 'x', 'x', '{}');`);
  }
  return {
    database,
    admin,
    login,
    [Symbol.asyncDispose]: async () => {
      await Promise.all([admin.end(), login.end()]);
      await database[Symbol.asyncDispose]();
    },
  };
}

interface Table {
  name: string;
  secured: boolean;
  forced: boolean;
  owner: string;
  policies: { name: string; using: string | null; check: string | null; roles: string[]; command: string }[];
}

async function tenantTables(): Promise<Table[]> {
  const { rows } = await admin.query<Table>(`
    SELECT c.relname AS name, c.relrowsecurity AS secured, c.relforcerowsecurity AS forced, pg_get_userbyid(c.relowner) AS owner,
      coalesce((SELECT json_agg(json_build_object('name', polname, 'using', pg_get_expr(polqual, polrelid), 'check', pg_get_expr(polwithcheck, polrelid),
        'roles', (SELECT coalesce(json_agg(rolname), '[]') FROM pg_roles WHERE oid = ANY(polroles)), 'command', polcmd::text)) FROM pg_policy WHERE polrelid = c.oid), '[]') AS policies
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND (c.relname = 'merchants' OR EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = c.oid AND attname = 'merchant_id' AND NOT attisdropped))
    ORDER BY 1`);
  return rows;
}

const TENANT_ROWS = /^\((id|merchant_id) = \( SELECT tenant\(\) AS tenant\)\)$/;

/**
 * Past the tenant may see: the operators' role, to read; the ledger's, which works on many merchants in one statement; and the notary's, which
 * makes checkpoints of all chains.
 */
function isKnown({ name, roles, command }: Table['policies'][number]): boolean {
  const role = roles.join();
  return (
    (role === 'merchant_bedrock_ops' && command === 'r') ||
    (role === 'merchant_bedrock_ledger' && name === 'ledger_works') ||
    (role === 'merchant_bedrock_notary' && name === 'notary_works')
  );
}

function problemsOf(table: Table): string[] {
  const own = table.policies.find((policy) => policy.name === 'tenant_rows');
  const others = table.policies.filter((policy) => policy !== own);
  return [
    ...(table.secured && table.forced ? [] : ['row security is not enabled and forced']),
    ...(own !== undefined &&
    TENANT_ROWS.test(own.using ?? '') &&
    TENANT_ROWS.test(own.check ?? '') &&
    own.command === '*'
      ? []
      : ['no policy that binds reads and writes to the tenant']),
    ...others.filter((policy) => !isKnown(policy)).map((policy) => `policy ${policy.name} lets more through`),
    ...(table.owner === 'merchant_bedrock_owner' ? [] : [`owned by ${table.owner}`]),
  ];
}

describe('from the catalog', () => {
  test('every table with a merchant in it, partitions included, is bound to the tenant, for its owner too', async () => {
    const tables = await tenantTables();
    expect(tables.map((table) => table.name)).toEqual(
      expect.arrayContaining([
        'api_keys',
        'audit_events',
        'audit_heads',
        'calls',
        'credential_versions',
        'credentials',
        'merchants',
        'usage_days',
      ]),
    );
    expect(tables.filter((table) => table.name.startsWith('calls_')).length).toBeGreaterThanOrEqual(12);
    expect(
      tables.flatMap((table) => problemsOf(table).map((problem) => `${table.name}: ${problem}`)),
    ).toEqual([]);
  });

  test('the check above finds a dropped policy, a missing FORCE and a wider policy', async () => {
    await admin.query('BEGIN');
    await admin.query(
      `DROP POLICY tenant_rows ON api_keys; ALTER TABLE credentials NO FORCE ROW LEVEL SECURITY; CREATE POLICY more ON usage_days USING (true)`,
    );
    const found = (await tenantTables())
      .filter((table) => problemsOf(table).length > 0)
      .map((table) => table.name);
    await admin.query('ROLLBACK');
    expect(found).toEqual(['api_keys', 'credentials', 'usage_days']);
  });

  test('the role of the ledger owns the functions of the ledger and nothing else', async () => {
    const { rows } = await admin.query<{ name: string; definer: boolean }>(
      `SELECT proname AS name, prosecdef AS definer FROM pg_proc WHERE pg_get_userbyid(proowner) = 'merchant_bedrock_ledger' ORDER BY 1`,
    );
    expect(rows.filter((row) => row.definer).map((row) => row.name)).toEqual(LEDGER);
    expect(rows.filter((row) => !row.definer).map((row) => row.name)).toEqual([
      'charge_counters',
      'count_limit_hit',
      'hold_carefully',
      'raise_alerts',
      'settle_counters',
      'settle_usage',
      'stop_overrun',
      'unsettle_usage',
    ]);
    const owned = await admin.query(
      `SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = 'merchant_bedrock_ledger'`,
    );
    expect(owned.rows).toEqual([]);
    const { rows: sees } = await admin.query(
      `SELECT bool_or(has_column_privilege('merchant_bedrock_ledger', t, c, 'SELECT')) AS may
       FROM (VALUES ('webhooks', 'url'), ('webhooks', 'sealed'), ('webhook_deliveries', 'body')) AS n (t, c)`,
    );
    expect(sees).toEqual([{ may: false }]);
  });

  test('the role of the notary owns the functions of checkpoints, and sees heads and leaves of merchants only', async () => {
    const { rows } = await admin.query<{ name: string }>(
      `SELECT proname AS name FROM pg_proc WHERE pg_get_userbyid(proowner) = 'merchant_bedrock_notary' ORDER BY 1`,
    );
    expect(rows.map((row) => row.name)).toEqual(NOTARY);
    const { rows: sees } = await admin.query<{ name: string }>(`
      SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND has_any_column_privilege('merchant_bedrock_notary', oid, 'SELECT, INSERT, UPDATE') ORDER BY 1`);
    expect(sees.map(({ name }) => name)).toEqual([
      'audit_checkpoints',
      'audit_heads',
      'audit_leaves',
      'audit_trees',
    ]);
    const { rows: may } = await admin.query(
      `SELECT bool_or(has_any_column_privilege('merchant_bedrock_notary', 'audit_heads', 'INSERT, UPDATE')) AS writes`,
    );
    expect(may).toEqual([{ writes: false }]);
  });

  test('no role of ours can log in with power, and the login of the service has none', async () => {
    const { rows } = await admin.query(
      `SELECT rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname LIKE 'merchant_bedrock%' ORDER BY 1`,
    );
    for (const { rolname, rolcanlogin, ...powers } of rows as { rolname: string; rolcanlogin: boolean }[]) {
      expect({ rolname, rolcanlogin, powers: Object.values(powers) }).toEqual({
        rolname,
        rolcanlogin: rolname === 'merchant_bedrock_service',
        powers: [false, false, false, false],
      });
    }
    const memberships = await admin.query(
      `SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = 'merchant_bedrock_service'`,
    );
    expect(memberships.rows).toEqual([{ rolname: 'merchant_bedrock_app' }]);
  });

  test('functions that run with their owner’s rights are those on the list, with a fixed search path, and not for everyone', async () => {
    const { rows } = await admin.query<{ name: string; path: string | null; everyone: boolean }>(`
      SELECT proname AS name, array_to_string(proconfig, ',') AS path, has_function_privilege('public', oid, 'EXECUTE') AS everyone
      FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY 1`);
    expect(rows.map((row) => row.name)).toEqual(DEFINERS);
    for (const row of rows)
      expect(row).toEqual({
        name: row.name,
        path: expect.stringMatching(
          /^search_path=pg_catalog, public, pg_temp(,plan_cache_mode=force_generic_plan,enable_seqscan=off)?$/,
        ),
        everyone: false,
      });
  });

  test('the login of the service owns nothing, can make nothing, and cannot reach a partition around its table', async () => {
    const { rows } = await admin.query(`
      SELECT (SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) IN ('merchant_bedrock_service', 'merchant_bedrock_app'))::int AS tables,
        (SELECT count(*) FROM pg_proc WHERE pg_get_userbyid(proowner) IN ('merchant_bedrock_service', 'merchant_bedrock_app'))::int AS functions,
        has_schema_privilege('merchant_bedrock_service', 'public', 'CREATE') AS makes,
        (SELECT bool_or(has_table_privilege('merchant_bedrock_service', inhrelid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES'))
          FROM pg_inherits WHERE inhparent = 'calls'::regclass) AS partitions`);
    expect(rows).toEqual([{ tables: 0, functions: 0, makes: false, partitions: false }]);
  });

  test('a partition made later is bound as well', async () => {
    await admin.query('BEGIN');
    await admin.query('SELECT ledger_make_partitions(20)');
    const tables = (await tenantTables()).filter((table) => table.name.startsWith('calls_'));
    await admin.query('ROLLBACK');
    expect(tables).toHaveLength(21);
    expect(tables.flatMap(problemsOf)).toEqual([]);
  });

  test('no function of another owner writes: definers belong to the owner, the ledger, the notary, or to ops, which only reads', async () => {
    const { rows } = await admin.query(
      `SELECT DISTINCT pg_get_userbyid(proowner) AS owner FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY 1`,
    );
    expect(rows.map(({ owner }: { owner: string }) => owner)).toEqual([
      'merchant_bedrock_ledger',
      'merchant_bedrock_notary',
      'merchant_bedrock_ops',
      'merchant_bedrock_owner',
    ]);
    const { rows: may } = await admin.query(
      `SELECT bool_or(has_table_privilege('merchant_bedrock_ops', oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) AS writes
       FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')`,
    );
    expect(may).toEqual([{ writes: false }]);
  });

  test.each(WRITTEN_BY_FUNCTIONS_ONLY)('the service cannot write to %s itself', async (table) => {
    const { rows } = await admin.query(
      `SELECT bool_or(has_table_privilege('merchant_bedrock_service', '${table}', p)) AS may FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p`,
    );
    expect(rows).toEqual([{ may: false }]);
  });

  test('the service cannot change what an operator decides, nor the schema', async () => {
    for (const sql of [
      `UPDATE calls SET state = 'void'`,
      `UPDATE usage_days SET settled = 0`,
      `INSERT INTO operator_keys (id) VALUES ('x')`,
      `UPDATE credential_versions SET secret_name = 'x'`,
      `SELECT settle_usage('{}')`,
      `SELECT audit_append_all('{}')`,
      `UPDATE limits SET ends_at = now()`,
      `DELETE FROM limits`,
      `INSERT INTO plans VALUES ('open', 2, '{}', 'x')`,
      `UPDATE counters SET tokens_max = NULL`,
      `UPDATE prices SET input = 0`,
      `DELETE FROM processes`,
      `DROP POLICY tenant_rows ON calls`,
      `CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
      `SET ROLE merchant_bedrock_ops`,
      `SET SESSION AUTHORIZATION postgres`,
      `UPDATE merchants SET direct_allowed = true`,
      `UPDATE merchants SET status = 'active'`,
      `UPDATE api_keys SET scopes = '{invoke}'`,
      `DELETE FROM credentials`,
      `CREATE TABLE mine (x int)`,
      `ALTER TABLE calls DISABLE ROW LEVEL SECURITY`,
      `SET ROLE merchant_bedrock_owner`,
      `SELECT * FROM operator_keys`,
      `SELECT sealed FROM webhooks`,
      `SELECT * FROM webhook_deliveries_due(1, 1, '{}')`,
      `UPDATE webhook_deliveries SET state = 'dead'`,
      `UPDATE credential_rotations SET state = 'retired'`,
      `UPDATE credentials SET approved_account_id = '1'`,
      `SELECT ledger_retire('2026-01-01', 'x', 'x')`,
      `CREATE TABLE archive.mine (x int)`,
      `SELECT * FROM counters_expired(1)`,
      `SELECT * FROM keys_status()`,
      `SELECT * FROM keys_below_pepper(1, 1)`,
      `SELECT * FROM data_keys_take('x', '', '', 0, 1)`,
      `SELECT data_keys_rewrapped('[]', 'x', 'x', 'x')`,
      `UPDATE credential_versions SET kms_key_arn = 'x'`,
      `UPDATE api_keys SET secret_hash = 'x'`,
      `UPDATE chores SET done_at = now()`,
      `SELECT * FROM audit_trees`,
      `SET ROLE merchant_bedrock_notary`,
    ]) {
      await expect(login.query(sql)).rejects.toMatchObject({
        code: expect.stringMatching(/^(42501|42939)$/),
      });
    }
  });
});

describe('at work', () => {
  const TABLES = [
    'merchants',
    'api_keys',
    'credentials',
    'credential_versions',
    'credential_rotations',
    'secret_intents',
    'calls',
    'usage_days',
    'counter_openings',
    'usage_openings',
    'webhooks',
    'webhook_deliveries',
    'audit_events',
    'audit_heads',
    'audit_leaves',
  ];

  /** What the service may write by itself: an UPDATE that must meet no row of B, and an INSERT that must be refused. */
  const WRITES: [table: string, change: string, insert: string][] = [
    ['merchants', `name = 'stolen'`, `INSERT INTO merchants (id, name) VALUES ('merchant-c', 'x')`],
    [
      'api_keys',
      `revoked_at = now()`,
      `INSERT INTO api_keys (merchant_id, id, name, environment, secret_hash, pepper_version, scopes, created_by, expires_at)
         VALUES ('${B}', repeat('z', 12), 'x', 'test', decode(repeat('00', 32), 'hex'), 1, '{}', 'x', now())`,
    ],
    [
      'credentials',
      `name = 'stolen'`,
      `INSERT INTO credentials (merchant_id, id, name, kind, region, key_hint, current_version, created_by)
         VALUES ('${B}', 'cred_' || repeat('z', 22), 'x', 'access-key', 'us-east-1', 'x', 1, 'x')`,
    ],
    [
      'credential_versions',
      `state = 'destroyed', wrapped_key = NULL`,
      `INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
         VALUES ('${B}', 'cred_' || repeat('0', 22), 2, 'pending', 'x', 'x', 'x', 'x')`,
    ],
  ];

  async function asMerchant<T>(
    client: pg.Client,
    merchant: string | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    await client.query('BEGIN');
    try {
      if (merchant !== undefined)
        await client.query(`SELECT set_config('app.merchant_id', $1, true)`, [merchant]);
      return await work();
    } finally {
      await client.query('ROLLBACK');
    }
  }

  const keyOf = (table: string) => (table === 'merchants' ? 'id' : 'merchant_id');

  function merchantsSeen(client: pg.Client, table: string, merchant?: string): Promise<string[]> {
    return asMerchant(client, merchant, async () => {
      const { rows } = await client.query<{ merchant: string }>(
        `SELECT DISTINCT ${keyOf(table)} AS merchant FROM ${table} ORDER BY 1`,
      );
      return rows.map((row) => row.merchant);
    });
  }

  /** What A got done to B; nothing, if all is well. */
  async function writesOfB(
    client: pg.Client,
    table: string,
    change: string,
    insert: string,
  ): Promise<string[]> {
    const done: string[] = [];
    await asMerchant(client, A, async () => {
      const { rowCount } = await client.query(`UPDATE ${table} SET ${change} WHERE ${keyOf(table)} = '${B}'`);
      if (rowCount !== 0) done.push('changed');
    });
    await asMerchant(client, A, () => client.query(insert)).then(
      () => done.push('made'),
      (error: unknown) => {
        expect(error).toMatchObject({
          code: '42501',
          message: expect.stringContaining('row-level security'),
        });
      },
    );
    return done;
  }

  test.each(TABLES)('%s: without a tenant nothing, as A only A', async (table) => {
    expect(await merchantsSeen(login, table)).toEqual([]);
    expect(await merchantsSeen(login, table, '')).toEqual([]);
    expect(await merchantsSeen(login, table, A)).toEqual([A]);
    expect(await merchantsSeen(login, table, B)).toEqual([B]);
    expect(await merchantsSeen(login, table)).toEqual([]);
  });

  test.each(WRITES)(
    'as A nothing of B can be changed, taken over or made: %s',
    async (table, change, insert) => {
      expect(await writesOfB(login, table, change, insert)).toEqual([]);
    },
  );

  test.each(TABLES)('%s: the two checks above see that its policy is gone', async (table) => {
    await using copy = await newCopy();
    await copy.admin.query(
      `DROP POLICY tenant_rows ON ${table}; CREATE POLICY everyone ON ${table} USING (true) WITH CHECK (true)`,
    );
    const seen = await merchantsSeen(copy.login, table, A);
    expect(seen).toEqual([A, B]);
    const write = WRITES.find(([name]) => name === table);
    if (write !== undefined) expect(await writesOfB(copy.login, ...write)).not.toEqual([]);
  });

  test('the tenant does not leak through the pool: 300 transactions on four connections, half of them failing', async () => {
    await using pool = new Database({
      url: new Secret(database.url),
      connectionsMax: 4,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
    const nobody = Prisma.sql`SELECT count(*)::int AS seen FROM api_keys`;
    const visit = async (index: number): Promise<boolean> => {
      const merchant = index % 2 === 0 ? A : B;
      // Between the transactions, on the same connections: no tenant, no rows.
      if (index % 5 === 0) return (await pool.query<{ seen: number }>(nobody))[0]?.seen === 0;
      try {
        return await pool.asTenant(merchant, async (tx) => {
          if (index % 6 === 1) throw new RangeError('before anything');
          const rows = await tx.apiKey.findMany({ select: { merchantId: true } });
          if (index % 6 === 2) throw new RangeError('after a query');
          if (index % 6 === 3) await tx.$queryRaw`SELECT 1 / 0`;
          return rows.every((row) => row.merchantId === merchant) && rows.length === 1;
        });
      } catch (error) {
        if (![1, 2, 3].includes(index % 6)) throw error;
        return true;
      }
    };
    // Twenty at a time: each waits for a connection, but none longer than a pool lets it.
    const results: boolean[] = [];
    await Promise.all(
      Array.from({ length: 20 }, async (_, lane) => {
        for (let index = lane; index < 300; index += 20) results.push(await visit(index));
      }),
    );
    expect(results).toHaveLength(300);
    expect(results.filter((right) => !right)).toEqual([]);
    expect(await pool.query(nobody)).toEqual([{ seen: 0 }]);
  });
});

test('a login that sees, or may change, what is of every merchant is not taken', async () => {
  await admin.query(`CREATE ROLE ${MEMBER} LOGIN PASSWORD 'x' IN ROLE merchant_bedrock_app`);
  const url = new URL(database.url);
  Object.assign(url, { username: MEMBER, password: 'x' });
  const options = { connectionsMax: 1, statementTimeoutMs: 5_000, onPoolError: () => undefined };
  const client = new Database({ ...options, url: new Secret(url.href) });
  try {
    await expect(assertSafeLogin(client)).resolves.toBeUndefined();
    for (const role of ['owner', 'ledger', 'notary', 'ops']) {
      await admin.query(`GRANT merchant_bedrock_${role} TO ${MEMBER}`);
      await expect(assertSafeLogin(client)).rejects.toThrow('which row security does not bind');
      await admin.query(`REVOKE merchant_bedrock_${role} FROM ${MEMBER}`);
    }
  } finally {
    await client[Symbol.asyncDispose]();
    await admin.query(`DROP ROLE ${MEMBER}`);
  }
});
