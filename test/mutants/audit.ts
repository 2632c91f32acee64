import type { Mutant } from '../../scripts/mutants/mutant.ts';

const INIT = 'prisma/migrations/20261121000000_init/migration.sql';
/** Since then the function that writes events is there. */
const MONEY = 'prisma/migrations/20261121120000_money/migration.sql';
const VERIFY = 'src/audit/verify.ts';
const AUDIT_CHAIN = 'test/server/audit-chain.test.ts';

/** The record of what was done: complete, in order, and not to be changed without notice. */
export const AUDIT: readonly Mutant[] = [
  {
    name: "An event's hash covers what was done, to the last field.",
    file: MONEY,
    find: '|| audit_field(e.request_id) || audit_field(e.body) || head.hash))',
    replace: '|| audit_field(e.request_id) || head.hash))',
    test: AUDIT_CHAIN,
    testName: 'the verifier',
  },
  {
    name: "An event's hash covers the hash before it.",
    file: MONEY,
    find: '|| audit_field(e.request_id) || audit_field(e.body) || head.hash))',
    replace: '|| audit_field(e.request_id) || audit_field(e.body)))',
    test: AUDIT_CHAIN,
    testName: 'the verifier',
  },
  {
    name: 'No two lists of fields give the same hash: each field comes after its length.',
    file: MONEY,
    find: 'pg_catalog.int4send(pg_catalog.octet_length(value)) OPERATOR(pg_catalog.||) ',
    replace: '',
    test: AUDIT_CHAIN,
    testName: 'the verifier',
  },
  {
    name: 'Events of the audit trail cannot be changed, not even by an owner.',
    file: INIT,
    find: 'BEFORE UPDATE OR DELETE ON audit_events',
    replace: 'BEFORE DELETE ON audit_events',
    test: AUDIT_CHAIN,
  },
  {
    name: 'Events of the audit trail cannot be deleted, not even by an owner.',
    file: INIT,
    find: 'BEFORE UPDATE OR DELETE ON audit_events',
    replace: 'BEFORE UPDATE ON audit_events',
    test: AUDIT_CHAIN,
  },
  {
    name: 'The audit trail cannot be emptied at once, not even by an owner.',
    file: INIT,
    find: 'CREATE TRIGGER audit_table_stays BEFORE TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();',
    replace: '',
    test: AUDIT_CHAIN,
  },
  {
    name: 'The verifier finds an event that was changed.',
    file: VERIFY,
    find: 'if (event.hash !== hashOf(event))',
    replace: 'if (event.hash.length !== hashOf(event).length)',
    test: AUDIT_CHAIN,
    testName: 'the verifier',
  },
  {
    name: 'The verifier finds an event that does not follow from the one before it.',
    file: VERIFY,
    find: 'if (event.prevHash !== this.#hash)',
    replace: 'if (event.prevHash.length !== this.#hash.length)',
    test: AUDIT_CHAIN,
  },
  {
    name: 'The verifier finds a gap.',
    file: VERIFY,
    find: 'if (event.seq !== this.#seq + 1)',
    replace: 'if (event.seq <= this.#seq)',
    test: AUDIT_CHAIN,
  },
  {
    name: 'The verifier finds a chain whose end was cut off.',
    file: VERIFY,
    find: 'if (expected.seq === this.#seq && expected.hash === this.#hash) return undefined;',
    replace: 'if (expected.seq >= this.#seq) return undefined;',
    test: AUDIT_CHAIN,
    testName: 'the verifier',
  },
  {
    name: 'The verifier finds a chain that was written anew to its end.',
    file: VERIFY,
    find: 'if (expected.seq === this.#seq && expected.hash === this.#hash) return undefined;',
    replace: 'if (expected.seq === this.#seq) return undefined;',
    test: AUDIT_CHAIN,
    testName: 'the verifier',
  },
];
