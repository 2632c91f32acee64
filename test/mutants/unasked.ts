import type { Mutant } from '../../scripts/mutants/mutant.ts';

const KEYS = 'src/credentials/rotation-keys.ts';
const STORE = 'src/credentials/credential-store.ts';
const TEST = 'src/gateway/permission-test.ts';
const RECONCILE = { test: 'test/server/reconcile.test.ts', testName: 'before the logs of a merchant' };
const AT_IAM = { test: 'test/server/rotation-order.test.ts', testName: 'before IAM is asked' };
const UNIT = { test: 'test/unit/permission-test.test.ts', testName: 'the right to ask' };

/** What the service asks AWS by itself, or for long: on record before, and not for whom was stopped. */
export const UNASKED: readonly Mutant[] = [
  {
    name: 'The logs of a merchant are not read before that is on record.',
    file: 'src/gateway/reconciler.ts',
    find: "await vault.recordAsking(ACTOR, merchantId, credentialId, 'logs');",
    replace: '',
    ...RECONCILE,
  },
  {
    name: 'Before the logs are read, the record is committed and not only begun.',
    file: 'src/gateway/reconciler.ts',
    find: 'await vault.recordAsking(ACTOR,',
    replace: 'void vault.recordAsking(ACTOR,',
    ...RECONCILE,
  },
  {
    name: 'IAM is asked nothing before that is on record.',
    file: KEYS,
    find: "await vault.recordAsking(actor, merchantId, stored.id, 'keys');",
    replace: '',
    ...AT_IAM,
  },
  {
    name: 'What was opened before its merchant was suspended is not used by the service itself.',
    file: STORE,
    find: 'await assertUsable(merchantId, tx, credentialId);\n',
    replace: 'await Promise.resolve(assertUsable);\n',
    test: [RECONCILE.test, AT_IAM.test],
    testName: 'before the logs of a merchant|before IAM is asked',
  },
  {
    name: 'To ask by itself, the service writes that it does.',
    file: STORE,
    find: "await appendAudit(tx, merchantId, askingAws(actor, about, { source: 'stored', credentialId }));",
    replace: 'void about;',
    ...AT_IAM,
  },
  {
    name: 'A merchant that is suspended is not active.',
    file: 'src/credentials/openable-version-store.ts',
    find: "where: { id: merchantId, status: 'active' }",
    replace: 'where: { id: merchantId }',
    ...AT_IAM,
  },
  {
    name: 'The new version of a suspended merchant is not opened.',
    file: 'src/credentials/rotation-store.ts',
    find: 'await assertMerchantActive(merchantId, tx);',
    replace: 'await Promise.resolve(assertMerchantActive);',
    test: 'test/server/rotation.test.ts',
    testName: 'of a merchant that is suspended',
  },
  {
    name: 'A rotation is not given up because its merchant is suspended for long.',
    file: 'src/credentials/rotation-worker.ts',
    find: 'if (isParked(error)) throw error;',
    replace: 'void isParked;',
    test: 'test/server/rotation.test.ts',
    testName: 'of a merchant that is suspended',
  },
  {
    name: 'Each step of a permission test asks whether the right still holds.',
    file: 'src/gateway/permission-cell.ts',
    find: 'if (!signal.aborted) await unlessAborted(signal, mayAsk(), undefined);',
    replace: 'void [mayAsk, unlessAborted];',
    ...UNIT,
  },
  {
    name: 'A region is not looked at when the right has ended.',
    file: TEST,
    find: '    about.ended.throwIfAborted();\n',
    replace: '',
    ...UNIT,
  },
  {
    name: 'AWS is not asked whose a credential is when the right has ended.',
    file: TEST,
    find: '    await mayAsk(home);\n',
    replace: '',
    ...UNIT,
  },
  {
    name: 'A permission test whose right ended is refused, and reports nothing.',
    file: TEST,
    find: '    ended.signal.throwIfAborted();\n',
    replace: '',
    ...UNIT,
  },
  {
    name: 'What a permission test has under way ends with its right.',
    file: TEST,
    find: '        ended.abort(error);\n',
    replace: '',
    ...UNIT,
  },
  {
    name: 'A permission test asks about the right of its merchant.',
    file: 'src/gateway/held-right.ts',
    find: 'if (verdict !== undefined) throw',
    replace: "if (verdict === 'source') throw",
    test: 'test/server/permission-test.test.ts',
    testName: 'suspended while its test runs',
  },
  {
    name: 'An approval of another account is for the next rotation and no later one.',
    file: 'prisma/migrations/20261121204000_suspended_work/migration.sql',
    find: 'approved_account_id = NULL, approved_until = NULL,',
    replace: '',
    test: 'test/server/rotation.test.ts',
    testName: 'approval of another account ends',
  },
  {
    name: "A login that reads every merchant's rows is not taken.",
    file: 'src/persistence/readiness.ts',
    find: " OR pg_has_role('merchant_bedrock_ops', 'MEMBER')",
    replace: '',
    test: 'test/server/row-security.test.ts',
    testName: 'is not taken',
  },
];
