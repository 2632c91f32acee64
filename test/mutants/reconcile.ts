import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MIGRATION = 'prisma/migrations/20261121170000_reconcile/migration.sql';
const RECONCILE = 'test/server/reconcile.test.ts';

/** Calls whose end nobody saw: what becomes of them. */
export const RECONCILING: readonly Mutant[] = [
  {
    name: 'Time alone never resolves an unknown call that its plan keeps.',
    file: 'src/gateway/reconciler.ts',
    find: "if (!call.overdue || call.whenUnknown === 'keep') return undefined;",
    replace: 'if (!call.overdue) return undefined;',
    test: RECONCILE,
  },
  {
    name: 'Policy waits for its time.',
    file: 'src/gateway/reconciler.ts',
    find: "if (!call.overdue || call.whenUnknown === 'keep') return undefined;",
    replace: "if (call.whenUnknown === 'keep') return undefined;",
    test: RECONCILE,
  },
  {
    name: 'Calls of another account are not looked for.',
    file: 'src/gateway/reconciler.ts',
    find: 'calls.filter(({ accountId = reader.accountId }) => accountId === reader.accountId)',
    replace: 'calls.filter(() => true)',
    test: RECONCILE,
  },
  {
    name: 'The estimate is the most that was held, not what came.',
    file: 'src/ledger/unknown.ts',
    find: "seen !== undefined && (seen.told || how === 'seen')",
    replace: 'seen !== undefined',
    test: RECONCILE,
  },
  {
    name: 'A record of another request is not the call’s.',
    file: 'src/bedrock/invocation-logs.ts',
    find: "&& record['requestId'] === awsRequestId ?",
    replace: '?',
    test: RECONCILE,
  },
  {
    name: 'An empty page is not the end of a log.',
    file: 'src/bedrock/log-group-aws.ts',
    find: 'if (nextToken === undefined) return;',
    replace: 'return;',
    test: RECONCILE,
  },
  {
    name: 'What one look-up reads is bounded after unzipping.',
    file: 'src/bedrock/log-bucket-aws.ts',
    find: 'if (this.#bytesLeft < 0)',
    replace: 'if (this.#bytesLeft < -1e9)',
    test: 'test/contract/invocation-logs.test.ts',
  },
  {
    name: 'A bucket of another account is never read.',
    file: 'src/bedrock/log-bucket-aws.ts',
    find: '{ Bucket: logs.s3.bucket, ExpectedBucketOwner: accountId }',
    replace: "{ Bucket: logs.s3.bucket, ExpectedBucketOwner: '100000000001' }",
    test: 'test/contract/invocation-logs.test.ts',
  },
  {
    name: 'A claim puts the next one off.',
    file: MIGRATION,
    find: "least(r.due, clock_timestamp() + least(interval '1 hour', interval '2 minutes' * power(2, least(c.reconcile_tries, 10))))",
    replace: 'clock_timestamp()',
    test: RECONCILE,
  },
  {
    name: 'An operator decides unknown calls only.',
    file: 'prisma/migrations/20261121206000_actors/migration.sql',
    find: "IF found_state IS DISTINCT FROM 'unknown' THEN",
    replace: 'IF found_state IS NULL THEN',
    test: RECONCILE,
  },
  {
    name: 'The logs are read with a credential of the merchant’s own.',
    file: 'prisma/migrations/20261121191000_roles/migration.sql',
    find: "WHERE c.merchant_id = p_merchant AND c.id = p_change->'invocationLogs'->>'credentialId' AND c.state = 'active' AND c.kind IN ('access-key', 'assume-role')) THEN\n      RETURN 'credential';",
    replace: "WHERE true) THEN\n      RETURN 'credential';",
    test: RECONCILE,
  },
];
