import type { Mutant } from '../../scripts/mutants/mutant.ts';

const INIT = 'prisma/migrations/20261121000000_init/migration.sql';
const ROW_SECURITY = 'test/server/row-security.test.ts';

/** What Postgres itself holds: whose rows are whose, and who may do what. */
export const DATABASE: readonly Mutant[] = [
  {
    name: 'Row security binds the owner of a table too.',
    file: INIT,
    find: "EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);",
    replace: '',
    test: ROW_SECURITY,
  },
  {
    name: 'Row security binds a partition that is made later, and its owner.',
    file: INIT,
    find: "EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);",
    replace: '',
    test: ROW_SECURITY,
  },
  {
    name: 'No transaction reads rows of another merchant.',
    file: INIT,
    find: "'CREATE POLICY tenant_rows ON %I USING (%I = (SELECT tenant())) WITH CHECK (%I = (SELECT tenant()))', tenant_table, key_column, key_column",
    replace:
      "'CREATE POLICY tenant_rows ON %I USING (true) WITH CHECK (%I = (SELECT tenant()))', tenant_table, key_column",
    test: ROW_SECURITY,
    testName: 'at work',
  },
  {
    name: 'No transaction writes rows for another merchant.',
    file: INIT,
    find: "'CREATE POLICY tenant_rows ON %I USING (%I = (SELECT tenant())) WITH CHECK (%I = (SELECT tenant()))', tenant_table, key_column, key_column",
    replace:
      "'CREATE POLICY tenant_rows ON %I USING (%I = (SELECT tenant())) WITH CHECK (true)', tenant_table, key_column",
    test: ROW_SECURITY,
    testName: 'at work',
  },
  {
    name: "The policy that reads across merchants is for the operators' questions only.",
    file: INIT,
    find: 'FOR SELECT TO merchant_bedrock_ops USING (true)',
    replace: 'FOR SELECT USING (true)',
    test: ROW_SECURITY,
    testName: 'at work',
  },
  {
    name: "A transaction's merchant ends with it, and does not stay on the connection.",
    file: 'src/persistence/database.ts',
    find: "set_config('app.merchant_id', ${merchantId}, true)",
    replace: "set_config('app.merchant_id', ${merchantId}, false)",
    test: ROW_SECURITY,
    testName: 'the tenant does not leak through the pool',
  },
  {
    name: 'The service cannot decide for itself what an operator decides for a merchant.',
    file: INIT,
    find: 'GRANT UPDATE (name, default_credential_id) ON merchants',
    replace: 'GRANT UPDATE (name, default_credential_id, direct_allowed) ON merchants',
    test: ROW_SECURITY,
  },
  {
    name: "The service reads the ledger and does not write to it but through the ledger's functions.",
    file: INIT,
    find: 'GRANT INSERT ON merchants, api_keys, credentials, credential_versions TO merchant_bedrock_app;',
    replace:
      'GRANT INSERT ON merchants, api_keys, credentials, credential_versions, calls TO merchant_bedrock_app;',
    test: ROW_SECURITY,
  },
  {
    name: 'No role of the service is exempt from row security.',
    file: INIT,
    find: 'NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE',
    replace: 'NOLOGIN NOSUPERUSER BYPASSRLS NOCREATEDB NOCREATEROLE',
    test: ROW_SECURITY,
    ownPostgres: true,
  },
];
