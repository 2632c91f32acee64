import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import type { TestDatabase } from '../support/postgres.ts';

/** Every function that runs with its owner's rights. A new one is a decision: it goes on this list with a reason in prisma/README.md. */
const DEFINERS = [
  'audit_append',
  'find_api_key',
  'find_operator_key',
  'ledger_make_partitions',
  'ledger_open',
  'ledger_resolve',
  'ops_merchants',
  'ops_usage',
  'overdue_calls',
];
const WRITTEN_BY_FUNCTIONS_ONLY = ['calls', 'usage_days', 'audit_events', 'audit_heads', 'operator_keys'];
const [A, B] = ['merchant-a', 'merchant-b'] as MerchantId[] as [MerchantId, MerchantId];

let database: TestDatabase & AsyncDisposable;
let admin: pg.Client;
let login: pg.Client;

beforeAll(async () => {
  database = await newTestDatabase();
  admin = new pg.Client({ connectionString: database.adminUrl });
  login = new pg.Client({ connectionString: database.url });
  await Promise.all([admin.connect(), login.connect()]);
  for (const merchant of [A, B]) {
    await admin.query(`
      INSERT INTO merchants (id, name) VALUES ('${merchant}', 'x');
      INSERT INTO credentials (merchant_id, id, name, kind, region, key_hint, current_version, created_by)
        VALUES ('${merchant}', 'cred_' || repeat('0', 22), 'x', 'access-key', 'us-east-1', 'x', 1, 'x');
      INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
        VALUES ('${merchant}', 'cred_' || repeat('0', 22), 1, 'current', 'x', 'x', 'x', 'x');
      INSERT INTO api_keys (merchant_id, id, name, environment, secret_hash, pepper_version, scopes, created_by, expires_at)
        VALUES ('${merchant}', '${merchant === A ? 'a' : 'b'}' || repeat('0', 11), 'x', 'test', decode(repeat('00', 32), 'hex'), 1, '{}', 'x', now() + interval '1 day');
      INSERT INTO usage_days (merchant_id, day, model_id, credential_id, credential_source, api_key_id) VALUES ('${merchant}', now(), 'x', '', 'direct', '');
      INSERT INTO calls (merchant_id, id, state, operation, model_id, region, credential_source, subject, request_id, created_at, deadline)
        VALUES ('${merchant}', uuid_v7(), 'held', 'converse', 'x', 'us-east-1', 'direct', 'x', 'x', now(), now());
      SELECT audit_append('${merchant}', 'x', 'x', 'x', 'x', 'x', '{}');`);
  }
});
afterAll(async () => {
  await Promise.all([admin.end(), login.end()]);
  await database[Symbol.asyncDispose]();
});

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
    ...others
      .filter((policy) => policy.command !== 'r' || policy.roles.join() !== 'merchant_bedrock_ops')
      .map((policy) => `policy ${policy.name} lets more through`),
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
        path: 'search_path=pg_catalog, public, pg_temp',
        everyone: false,
      });
  });

  test.each(WRITTEN_BY_FUNCTIONS_ONLY)('the service cannot write to %s itself', async (table) => {
    const { rows } = await admin.query(
      `SELECT bool_or(has_table_privilege('merchant_bedrock_service', '${table}', p)) AS may FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) p`,
    );
    expect(rows).toEqual([{ may: false }]);
  });

  test('the service cannot change what an operator decides, nor the schema', async () => {
    for (const sql of [
      `UPDATE merchants SET direct_allowed = true`,
      `UPDATE merchants SET status = 'active'`,
      `UPDATE api_keys SET scopes = '{invoke}'`,
      `DELETE FROM credentials`,
      `CREATE TABLE mine (x int)`,
      `ALTER TABLE calls DISABLE ROW LEVEL SECURITY`,
      `SET ROLE merchant_bedrock_owner`,
      `SELECT * FROM operator_keys`,
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
    'calls',
    'usage_days',
    'audit_events',
    'audit_heads',
  ];

  test.each(TABLES)('%s: without a tenant nothing, as A only A', async (table) => {
    const column = table === 'merchants' ? 'id' : 'merchant_id';
    expect((await login.query(`SELECT * FROM ${table}`)).rows).toEqual([]);
    await login.query('BEGIN');
    await login.query(`SELECT set_config('app.merchant_id', $1, true)`, [A]);
    const { rows } = await login.query<Record<string, string>>(`SELECT ${column} AS merchant FROM ${table}`);
    await login.query('COMMIT');
    expect(rows).toEqual([{ merchant: A }]);
    expect((await login.query(`SELECT * FROM ${table}`)).rows).toEqual([]);
  });

  test('as A nothing of B can be changed or made', async () => {
    await login.query('BEGIN');
    await login.query(`SELECT set_config('app.merchant_id', $1, true)`, [A]);
    expect(
      (await login.query(`UPDATE api_keys SET revoked_at = now() WHERE merchant_id = $1`, [B])).rowCount,
    ).toBe(0);
    expect(
      (
        await login.query(
          `UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL WHERE merchant_id = $1`,
          [B],
        )
      ).rowCount,
    ).toBe(0);
    await expect(
      login.query(`INSERT INTO merchants (id, name) VALUES ('merchant-c', 'x')`),
    ).rejects.toMatchObject({ code: '42501' });
    await login.query('ROLLBACK');
  });

  test('the tenant does not leak through the pool: 300 transactions on four connections, a third of them failing', async () => {
    await using pool = new Database({
      url: new Secret(database.url),
      connectionsMax: 4,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
    const results = await Promise.all(
      Array.from({ length: 300 }, async (_, index) => {
        const merchant = index % 2 === 0 ? A : B;
        try {
          return await pool.asTenant(merchant, async (tx) => {
            if (index % 3 === 0) throw new RangeError('on purpose');
            const rows = await tx.apiKey.findMany({ select: { merchantId: true } });
            return rows.every((row) => row.merchantId === merchant) && rows.length === 1;
          });
        } catch (error) {
          return error instanceof RangeError;
        }
      }),
    );
    expect(results.filter((right) => !right)).toEqual([]);
  });
});
