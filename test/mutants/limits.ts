import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MONEY = 'prisma/migrations/20261121120000_money/migration.sql';
/** Where the function that admits calls is now. */
const ADMISSION = 'prisma/migrations/20261121192000_rotation/migration.sql';
const LIMITS_TEST = 'test/server/limits.test.ts';

/** Limits, bounds and what becomes of a call that fits in part. */
export const LIMITS: readonly Mutant[] = [
  {
    name: 'The database itself refuses more tokens than a limit.',
    file: MONEY,
    find: '  CONSTRAINT tokens_within_limit CHECK (tokens_held + tokens_unknown + tokens_settled <= tokens_max),\n',
    replace: '',
    test: LIMITS_TEST,
    testName: 'whoever wrote it',
  },
  {
    name: 'Calls in doubt count against a limit on money.',
    file: MONEY,
    find: 'CHECK (nano_held + nano_unknown + nano_settled <= nano_max)',
    replace: 'CHECK (nano_held + nano_settled <= nano_max)',
    test: LIMITS_TEST,
    testName: 'whoever wrote it',
  },
  {
    name: 'What does not fit is refused before it is written.',
    file: MONEY,
    find: '    refused := FOUND;\n',
    replace: '    refused := false;\n',
    test: LIMITS_TEST,
  },
  {
    name: 'A call that ended is in flight no more.',
    file: MONEY,
    find: 'in_flight = c.in_flight - d.in_flight,',
    replace: 'in_flight = c.in_flight,',
    test: LIMITS_TEST,
  },
  {
    name: 'An output of which a part fits is clamped in the body that goes out.',
    file: 'src/gateway/admission.ts',
    find: '...(call.maxTokens !== undefined && { maxTokens: call.maxTokens }),',
    replace: '',
    test: LIMITS_TEST,
    testName: 'clamped in the outgoing request',
  },
  {
    name: 'A merchant whose call used more than was held is stopped.',
    file: MONEY,
    find: '    IF p_hard THEN\n',
    replace: '    IF false THEN\n',
    test: LIMITS_TEST,
    testName: 'the merchant stopped',
  },
  {
    name: 'A change of a merchant is known to every process with the next call.',
    file: ADMISSION,
    find: "        WHEN i.merchant_revision <> s.revision THEN 'stale'\n",
    replace: '',
    test: LIMITS_TEST,
    testName: 'another default credential',
  },
  {
    name: 'A model that a plan does not list is refused.',
    file: ADMISSION,
    find: "        WHEN s.spec ? 'models' AND NOT model_allowed(s.spec->'models', coalesce(i.base_model_id, i.model_id)) THEN 'model'\n",
    replace: '',
    test: 'test/server/models-behind.test.ts',
  },
  {
    name: 'A shadow limit counts what it would have refused.',
    file: MONEY,
    find: "      WHERE u.mode = 'shadow' AND u.wanted > 0 AND u.used + u.wanted > u.maximum;\n",
    replace: '      WHERE false;\n',
    test: LIMITS_TEST,
    testName: 'shadow refuses nothing',
  },
  {
    name: 'Nothing that was revoked before is admitted: the heads are locked before anything is read.',
    file: ADMISSION,
    find: '    -- The heads first, always: they order the admissions, settlements, revocations and changes of limits of a merchant.\n    PERFORM 1 FROM (SELECT 1 FROM audit_heads h WHERE h.merchant_id = ANY (merchants) ORDER BY h.merchant_id FOR UPDATE) AS locked;\n',
    replace: '',
    test: 'test/server/ledger.test.ts',
  },
];
