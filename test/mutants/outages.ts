import type { Mutant } from '../../scripts/mutants/mutant.ts';

const ANSWERS = 'prisma/migrations/20261121160000_answers/migration.sql';
const IDEMPOTENCY = 'test/server/idempotency.test.ts';
const UNSENT_SQL = 'prisma/migrations/20261121203000_unsent/migration.sql';
const LEDGER = 'test/server/ledger.test.ts';
const UNSENT = 'test/unit/unsent.test.ts';
const SPOOL = 'src/ledger/spool.ts';
const SPOOL_UNIT = 'test/unit/spool.test.ts';
const SPOOL_SERVER = 'test/server/spool.test.ts';

/** What holds while Postgres is away, when a process dies, and when a call is asked for twice. */
export const OUTAGES: readonly Mutant[] = [
  {
    name: 'A call that ends while Postgres is away is settled when it is back.',
    file: 'src/ledger/ledger.ts',
    find: 'if (isAway(error) && (await',
    replace: 'if (!isAway(error) && (await',
    test: SPOOL_SERVER,
    testName: 'running calls finish and are kept',
  },
  {
    name: 'Nobody is told that nothing was done where the answer to a change was lost.',
    file: 'src/persistence/errors.ts',
    find: 'What only reads can be sent again shortly; of a change it is not known whether it was made: look (GET …) before you send it again.',
    replace: 'Nothing was done; try again shortly.',
    test: 'test/server/lost-answer.test.ts',
  },
  {
    name: 'Of a paid call that the database let not begin it is said that nothing was sent.',
    file: 'src/http/handlers/model/wire.ts',
    find: "throw nothingDone(error, 'No call was made and nothing was sent to AWS');",
    replace: 'throw error as Error;',
    test: 'test/server/lost-answer.test.ts',
  },
  {
    name: 'A call that was admitted without an answer is remembered.',
    file: 'src/ledger/ledger.ts',
    find: 'if (isAway(error)) this.#options.unsent?.remember',
    replace: 'if (!isAway(error)) this.#options.unsent?.remember',
    test: 'test/server/unsent.test.ts',
  },
  {
    name: 'Nobody asks for a lost admission before its statement is ended.',
    file: 'src/ledger/unsent.ts',
    find: 'filter(({ dueAt }) => dueAt <= now)',
    replace: 'filter(({ dueAt }) => dueAt <= now + 1)',
    test: UNSENT,
  },
  {
    name: 'Lost admissions are asked for until Postgres answers.',
    file: 'src/ledger/unsent.ts',
    find: 'if (isAway(error)) return moved;',
    replace: '',
    test: UNSENT,
  },
  {
    name: 'What an outage makes a process remember is bounded.',
    file: 'src/ledger/unsent.ts',
    find: 'if (this.#lost.length < max)',
    replace: 'if (this.#lost.length < Infinity)',
    test: UNSENT,
  },
  {
    name: 'A process makes no calls of another void.',
    file: UNSENT_SQL,
    find: "WHERE h.state = 'held' AND h.process_id = p_process AND",
    replace: "WHERE h.state = 'held' AND",
    test: LEDGER,
  },
  {
    name: 'A lost admission that a sweep took for unknown is void as well.',
    file: UNSENT_SQL,
    find: "WHERE u.state = 'unknown' AND",
    replace: "WHERE u.state = 'held' AND false AND",
    test: LEDGER,
  },
  {
    name: 'No call begins whose settlement could find no place.',
    file: 'src/ledger/ledger.ts',
    find: 'if (this.#options.spool?.full === true) {',
    replace: 'if (this.#options.spool === null) {',
    test: SPOOL_SERVER,
    testName: 'while the spool is full',
  },
  {
    name: 'No settlement is lost that a process writes after it was taken for dead.',
    file: SPOOL,
    find: 'kept = (await this.#options.disk.identify(current.name)) === current.file.identity;',
    replace: 'kept = true;',
    test: SPOOL_UNIT,
  },
  {
    name: 'A file of the spool stays until Postgres has taken all of it.',
    file: SPOOL,
    find: 'if (away !== undefined) throw away;',
    replace: '',
    test: SPOOL_UNIT,
  },
  {
    name: 'The files of a process that lives are left to it.',
    file: SPOOL,
    find: '(signs.get(owner) ?? -Infinity) < now - DEAD_AFTER_MS',
    replace: '(signs.get(owner) ?? -Infinity) <= now',
    test: SPOOL_UNIT,
  },
  {
    name: 'The files of a process that died are settled by another.',
    file: SPOOL,
    find: "if (isDead(FILE.exec(name)?.[1])) await disk.rename(name, this.#newName('jsonl'));",
    replace: '',
    test: SPOOL_UNIT,
  },
  {
    name: 'A settlement that was altered on the disk is not written into the ledger.',
    file: 'src/ledger/spool-line.ts',
    find: 'v === VERSION && sum === sumOf(JSON.stringify(entry)) ? entry : undefined',
    replace: 'v === VERSION && sum !== undefined ? entry : undefined',
    test: SPOOL_UNIT,
  },
  {
    name: 'Nobody else on the machine reads the spool.',
    file: 'src/ledger/spool-disk.ts',
    find: "open(this.#at(name), 'ax', 0o600)",
    replace: "open(this.#at(name), 'ax', 0o644)",
    test: SPOOL_UNIT,
  },
  {
    name: 'An answer is kept before its call is settled, so that no crash comes between.',
    file: 'src/gateway/gateway.ts',
    find: /await sent\.recorder\?\.keep\(\);\n\s+(await sent\.call\.resolve\(\{[^;]*\}\);)/,
    replace: '$1\n    await sent.recorder?.keep();',
    test: IDEMPOTENCY,
    testName: 'kill -9 between the two',
  },
  {
    name: 'Half a stream is never given for a whole one.',
    file: 'src/gateway/relay-stream.ts',
    find: "if (outcome.state === 'settled') await this.#sent.recorder?.keep();",
    replace: 'await this.#sent.recorder?.keep();',
    test: IDEMPOTENCY,
    testName: 'a stream that broke off',
  },
  {
    name: 'A key that was used for another guardrail or tier is refused.',
    file: 'src/gateway/idempotency.ts',
    find: "name.startsWith('x-amzn-bedrock-')",
    replace: "name.startsWith('x-other-')",
    test: IDEMPOTENCY,
    testName: 'is another call: it is refused',
  },
  {
    name: 'An answer that is too long is not kept.',
    file: 'src/gateway/kept-answers.ts',
    find: 'if (this.#bytes <= ANSWER_BYTES_MAX) await this.#write(',
    replace: 'await this.#write(',
    test: 'test/unit/kept-answers.test.ts',
  },
  {
    name: 'While the first call with a key runs, a second is told so.',
    file: 'src/gateway/kept-answers.ts',
    find: "if (state === 'held' || state === 'void') {",
    replace: "if (state === 'void') {",
    test: IDEMPOTENCY,
    testName: 'a hundred at one time',
  },
  {
    name: 'A kept answer ends after a day.',
    file: 'src/ledger/answer-store.ts',
    find: 'CASE WHEN k.answer_until > clock_timestamp() THEN k.answer END AS answer',
    replace: 'k.answer AS answer',
    test: IDEMPOTENCY,
    testName: 'a day old',
  },
  {
    name: 'Housekeeping removes kept answers past their end.',
    file: ANSWERS,
    find: 'UPDATE idempotency_keys SET answer = NULL, answer_until = NULL',
    replace: 'UPDATE idempotency_keys SET answer = answer',
    test: IDEMPOTENCY,
    testName: 'a day old',
  },
  {
    name: 'A call that AWS may have run is not made again with its key.',
    file: 'prisma/migrations/20261121120000_money/migration.sql',
    find: "c.id = kept.call_id AND c.state = 'void')",
    replace: "c.id = kept.call_id AND c.state IN ('void', 'unknown'))",
    test: IDEMPOTENCY,
    testName: 'in doubt',
  },
  {
    name: "A kept answer opens only with its caller's key.",
    file: 'src/ledger/answer-seal.ts',
    find: "hkdfSync('sha256', key.reveal(), idempotencyKey,",
    replace: "hkdfSync('sha256', key.reveal(), '',",
    test: 'test/unit/answer-seal.test.ts',
  },
];
