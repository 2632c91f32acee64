import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MONEY = 'prisma/migrations/20261121120000_money/migration.sql';
const RECORDS = 'src/ledger/usage-record-store.ts';
const REPORTS_TEST = 'test/server/usage-reports.test.ts';
const EXPORT_TEST = 'test/server/usage-export.test.ts';
const VERIFY_TEST = 'test/server/usage-verify.test.ts';

/** What was used: reports, records, exports and their proof. */
export const USAGE: readonly Mutant[] = [
  {
    name: 'Calls that name no end user are what everyone used less what the named ones used.',
    file: 'src/ledger/usage-store.ts',
    find: '(NULL, -1)',
    replace: '(NULL, 0)',
    test: REPORTS_TEST,
    testName: 'random calls of several days',
  },
  {
    name: 'A call that was in doubt leaves that count, and what its answer counted as, when it is resolved.',
    file: MONEY,
    find: 'SET unknown = d.unknown - s.unknown, throttled = d.throttled - s.throttled, failed',
    replace: 'SET unknown = d.unknown - s.unknown, failed',
    test: REPORTS_TEST,
    testName: 'a call that was unknown',
  },
  {
    name: 'A percentile is the latency of a call of that rank.',
    file: 'src/ledger/latency.ts',
    find: 'if (rank <= before + count) {',
    replace: 'if (rank < before + count) {',
    test: REPORTS_TEST,
    testName: 'percentiles of any latencies',
  },
  {
    name: "Operators' sums count a call of an end user once.",
    file: 'prisma/migrations/20261121150000_usage/migration.sql',
    find: "AND d.end_user = '*' AND d.day >= p_from",
    replace: 'AND d.day >= p_from',
    test: REPORTS_TEST,
    testName: 'page by page',
  },
  {
    name: 'A page that found less than it may show goes on where it stopped looking.',
    file: RECORDS,
    find: 'rows.length > limit ? items.at(-1)?.id : edge;',
    replace: 'rows.length > limit ? items.at(-1)?.id : undefined;',
    test: EXPORT_TEST,
    testName: 'looks at no more than',
  },
  {
    name: 'A record is of the day on which its call began, though its id was made after midnight.',
    file: RECORDS,
    find: 'const ID_SLACK_MS = 60_000;',
    replace: 'const ID_SLACK_MS = 0;',
    test: EXPORT_TEST,
    testName: 'around midnight',
  },
  {
    name: 'An export ends, however many calls begin while it runs.',
    file: 'src/ledger/usage-store.ts',
    find: '          upTo,\n',
    replace: '',
    test: EXPORT_TEST,
    testName: 'calls that begin while it runs',
  },
  {
    name: 'No cell of an export is a formula.',
    file: 'src/ledger/csv.ts',
    find: "FORMULA.test(cell) ? `'${cell}` : cell",
    replace: 'cell',
    test: EXPORT_TEST,
    testName: 'any text comes back',
  },
  {
    name: 'In FOCUS only what corrects an earlier month is a Correction.',
    file: 'src/ledger/focus.ts',
    find: 'correction.createdAt.slice(0, 7) > record',
    replace: 'correction.createdAt.slice(0, 7) >= record',
    test: EXPORT_TEST,
    testName: 'FOCUS',
  },
  {
    name: 'An export tells beside its body how much it holds.',
    file: 'src/http/handlers/usage/export.ts',
    find: 'end(next.value);',
    replace: '',
    test: EXPORT_TEST,
    testName: 'NDJSON, whole',
  },
  {
    name: 'Nothing is read on for a reader that went away.',
    file: 'src/http/stream-reply.ts',
    find: '    if (isGone(res)) return;\n    if (!res.write(piece) && !(await drained(res, stallTimeoutMs))) {',
    replace:
      '    if (!isGone(res) && !res.write(piece) && !(await drained(res, stallTimeoutMs)) && !isGone(res)) {',
    test: EXPORT_TEST,
    testName: 'goes away stops the reading',
  },
  {
    name: 'Verification computes the cost of each call again.',
    file: 'prisma/migrations/20261121180000_retention/migration.sql',
    find: "AND c.state = 'settled' AND c.cost_nano IS DISTINCT FROM s.cost",
    replace: "AND c.state = 'settled' AND c.cost_nano IS NULL AND s.cost IS NOT NULL",
    test: VERIFY_TEST,
    testName: 'a cost and every sum of it',
  },
  {
    name: 'Verifications never take all connections.',
    file: 'src/ledger/usage-verify-store.ts',
    find: 'const RUNNING_MAX = 2;',
    replace: 'const RUNNING_MAX = 20;',
    test: VERIFY_TEST,
    testName: 'two run at one time',
  },
];
