import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MONEY = 'prisma/migrations/20261121120000_money/migration.sql';
const KILL = 'test/crash/kill.test.ts';
const OF_SERVICE = 'kill -9 of the service';

/** What holds when a process dies in the middle of calls. */
export const CRASH: readonly Mutant[] = [
  {
    name: 'Time alone gives nothing back: a call whose process died is in doubt.',
    file: MONEY,
    find: "'id', d.scope_id, 'state', 'unknown',",
    replace: "'id', d.scope_id, 'state', 'void',",
    test: KILL,
  },
  {
    name: 'A call whose process died is found by the end of its lease, long before its deadline.',
    file: MONEY,
    find: '(p.lease_until < clock_timestamp() OR h.deadline < clock_timestamp())',
    replace: 'h.deadline < clock_timestamp()',
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'A row moves only from the state it was in: it is resolved once, whoever resolves it.',
    file: MONEY,
    find: " AND (c.state = 'held' OR (c.state = 'unknown' AND o.state IN ('settled', 'void')))",
    replace: '',
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'An outcome is counted once.',
    file: MONEY,
    find: 'PERFORM settle_usage(changes);',
    replace: 'PERFORM settle_usage(changes); PERFORM settle_usage(changes);',
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'An outcome is on record once.',
    file: MONEY,
    find: 'FROM unnest(changes) AS m));',
    replace: 'FROM unnest(changes) AS m CROSS JOIN generate_series(1, 2)));',
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'A call that was in doubt stops counting as such when it is resolved.',
    file: MONEY,
    find: " - (x.before = 'unknown')::integer AS unknown",
    replace: ' AS unknown',
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'Every request carries the id of its row to AWS.',
    file: 'src/gateway/admission.ts',
    find: '{ merchantBedrockCall: call.id }',
    replace: '{ merchantBedrockCall: call.id.slice(1) }',
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'Calls in doubt are shown to their merchant.',
    file: 'src/ledger/usage-record-store.ts',
    find: 'id: { ...idBounds(query), ...(edge',
    replace: "NOT: { state: 'unknown' }, id: { ...idBounds(query), ...(edge",
    test: KILL,
    testName: OF_SERVICE,
  },
  {
    name: 'Only a row that is on disk lets its call go.',
    file: 'src/persistence/database.ts',
    find: "application_name: 'merchant-bedrock',",
    replace: "application_name: 'merchant-bedrock', options: '-c synchronous_commit=off',",
    test: KILL,
    testName: 'kill -9 of Postgres',
  },
];
