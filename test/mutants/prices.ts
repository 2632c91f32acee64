import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MONEY = 'prisma/migrations/20261121120000_money/migration.sql';
const RERATE = 'prisma/migrations/20261121130000_rerate/migration.sql';
const STORE = 'src/ledger/price-store.ts';
const PRICES_TEST = 'test/server/prices.test.ts';
const OPS_TEST = 'test/server/ops-prices.test.ts';
const CLI_TEST = 'test/cli/prices.test.ts';

/** The price book: what is charged, how it changes, and calls that are rated again. */
export const PRICES: readonly Mutant[] = [
  {
    name: 'Rating the same calls twice corrects them once.',
    file: RERATE,
    find: 's.cost - coalesce((c).cost_nano, 0) - coalesce(e.delta, 0) AS delta',
    replace: 's.cost - coalesce((c).cost_nano, 0) AS delta',
    test: PRICES_TEST,
    testName: 'second run writes nothing',
  },
  {
    name: 'Two that rate the same calls at one time do not both correct them.',
    file: RERATE,
    find: 'PERFORM 1 FROM audit_heads h WHERE h.merchant_id = p_merchant FOR UPDATE;',
    replace: 'NULL;',
    test: PRICES_TEST,
    testName: 'of two that rate',
  },
  {
    name: 'A dry run writes no correction.',
    file: RERATE,
    find: 'FROM rated AS r WHERE r.delta <> 0 AND NOT p_dry_run),',
    replace: 'FROM rated AS r WHERE r.delta <> 0),',
    test: PRICES_TEST,
    testName: 'second run writes nothing',
  },
  {
    name: 'Corrections are in the sums of the day.',
    file: RERATE,
    find: 'WHERE r.delta <> 0 AND NOT p_dry_run GROUP BY',
    replace: 'WHERE false GROUP BY',
    test: PRICES_TEST,
    testName: 'says which price',
  },
  {
    name: 'A call just before the turn of a month is rated with its month.',
    file: RERATE,
    find: "c.id >= uuid_v7_floor(p_from - interval '10 minutes') AND",
    replace: 'c.id >= uuid_v7_floor(p_from) AND',
    test: PRICES_TEST,
    testName: 'clock that was set',
  },
  {
    name: 'Of two imports of one book one is done.',
    file: RERATE,
    find: 'IF p_book <> (SELECT coalesce(max(id), 0) FROM prices) THEN',
    replace: 'IF false THEN',
    test: PRICES_TEST,
    testName: 'one is done',
  },
  {
    name: "A region's own price holds before one for all regions, also an older one.",
    file: RERATE,
    find: "ORDER BY (l.p).region = '*', (l.p).valid_from DESC LIMIT 1",
    replace: 'ORDER BY (l.p).valid_from DESC LIMIT 1',
    test: PRICES_TEST,
    testName: 'also when a later one',
  },
  {
    name: 'The service may neither import prices nor rate calls.',
    file: RERATE,
    find: "    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);\n",
    replace: '',
    test: PRICES_TEST,
    testName: 'neither import nor rate',
  },
  {
    name: 'A cost is rounded up, to the last nano-dollar.',
    file: MONEY,
    find: '+ coalesce(p.request, 0) + 999999, 1000000)::bigint',
    replace: '+ coalesce(p.request, 0), 1000000)::bigint',
    test: PRICES_TEST,
    testName: 'is the same in SQL',
  },
  {
    name: 'Only the book that was seen is imported.',
    file: 'scripts/cli/price-book.ts',
    find: 'if (diff.digest !== approved)',
    replace: "if (approved === '')",
    test: CLI_TEST,
  },
  {
    name: 'A day that is in no calendar is refused.',
    file: 'scripts/cli/prices-order.ts',
    find: 'const isReal = !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text.slice(0, 10));',
    replace: 'const isReal = !Number.isNaN(date.getTime());',
    test: CLI_TEST,
  },
  {
    name: 'A page of prices begins after the last one.',
    file: STORE,
    find: 'OR (${KEY}) > (SELECT p.model_id',
    replace: 'OR (${KEY}) >= (SELECT p.model_id',
    test: OPS_TEST,
    testName: 'page by page',
  },
  {
    name: 'A price that was withdrawn is no price.',
    file: STORE,
    find: '  WHERE NOT withdrawn',
    replace: '  WHERE true',
    test: OPS_TEST,
    testName: 'as it is now',
  },
  {
    name: 'An application profile is priced and allowed as the model that it runs.',
    file: 'src/gateway/models-behind.ts',
    find: 'return found ?? named;',
    replace: 'return found === undefined ? named : named;',
    test: 'test/server/models-behind.test.ts',
  },
  {
    name: 'Tokens on provisioned throughput are not charged as tokens on demand.',
    file: 'src/bedrock/models-aws.ts',
    find: "runs(foundationModelArn, 'provisioned')",
    replace: "runs(foundationModelArn, 'in-region')",
    test: 'test/server/models-behind.test.ts',
  },
];
