import type { Mutant } from '../../scripts/mutants/mutant.ts';

const RETENTION_SQL = 'prisma/migrations/20261121180000_retention/migration.sql';
const RETENTION_TEST = 'test/server/retention.test.ts';

/** Old months leave, and the books stay right. */
export const RETENTION: readonly Mutant[] = [
  {
    name: 'A month with a call that is held or unknown stays.',
    file: RETENTION_SQL,
    find: 'IF open_held + open_unknown > 0 THEN',
    replace: 'IF open_held > 0 THEN',
    test: RETENTION_TEST,
    testName: 'stays while a call is held or unknown',
  },
  {
    name: 'What the calls of a retired month count stays in the proof.',
    file: RETENTION_SQL,
    find: '        FROM counter_openings WHERE merchant_id = tenant()) AS parts',
    replace: '        FROM counter_openings WHERE false) AS parts',
    test: RETENTION_TEST,
    testName: 'leaves the books right',
  },
  {
    name: 'A correction of a retired call that is changed is found.',
    file: RETENTION_SQL,
    find: 'WHERE coalesce(r.delta, 0) <> o.delta',
    replace: 'WHERE r.delta IS NULL AND o.delta <> 0',
    test: RETENTION_TEST,
    testName: 'a correction that was tampered with',
  },
  {
    name: 'The key of a void call stays free when its month is retired.',
    file: RETENTION_SQL,
    find: "AND c.id < beyond AND c.state = 'void');",
    replace: 'AND c.id < beyond AND false);',
    test: RETENTION_TEST,
    testName: 'frees the keys of void calls',
  },
  {
    name: 'The keys of other calls stay used.',
    file: RETENTION_SQL,
    find: "AND c.id < beyond AND c.state = 'void');",
    replace: 'AND c.id < beyond);',
    test: RETENTION_TEST,
    testName: 'frees the keys of void calls',
  },
  {
    name: 'A retirement that calls do not let through gives up.',
    file: RETENTION_SQL,
    find: "PERFORM set_config('lock_timeout', '3s', true);",
    replace: '',
    test: RETENTION_TEST,
    testName: 'gives up, with nothing done',
  },
  {
    name: 'A counter of a minute that is still needed is missed.',
    file: RETENTION_SQL,
    find: 'AND NOT (kept.numbers IS NULL AND counter_expired(period, starts_at, now()))',
    replace: "AND NOT (kept.numbers IS NULL AND period IN ('minute', 'day'))",
    test: RETENTION_TEST,
    testName: 'vanish when they hold nothing',
  },
  {
    name: 'The opening balance of a counter goes with it.',
    file: RETENTION_SQL,
    find: 'WHERE o.merchant_id = one.merchant_id AND o.scope = e.scope',
    replace: 'WHERE false AND o.scope = e.scope',
    test: RETENTION_TEST,
    testName: 'of a retired month vanish',
  },
  {
    name: 'Without --apply nothing is done.',
    file: 'scripts/retention.ts',
    find: 'if (!apply || blocked) {',
    replace: 'if (blocked) {',
    test: RETENTION_TEST,
    testName: 'says what it would do',
  },
];
