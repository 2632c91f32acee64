import type { Mutant } from '../../scripts/mutants/mutant.ts';

const FAIR_QUEUE = 'src/gateway/fair-queue.ts';
const FAIR_QUEUE_TEST = 'test/unit/fair-queue.test.ts';
const BUDGET = 'src/auth/failure-budget.ts';
const BUDGET_TEST = 'test/unit/failure-budget.test.ts';
const LOG_TEST = 'test/unit/log-line.test.ts';
const PIPELINE = 'src/http/server-pipeline.ts';
const STALLS = 'src/http/server-stalls.ts';
const UNREAD_TEST = 'test/server/protocols-unread.test.ts';
const PROCESS_TEST = 'test/unit/process-dangers.test.ts';

/** Neighbours, failures to authenticate, and what may be read of a process. */
export const HARDENING: readonly Mutant[] = [
  {
    name: 'A merchant has a bounded part of the calls in flight.',
    file: FAIR_QUEUE,
    find: 'return this.#inFlight < inFlightMax && lane.inFlight < inFlightPerMerchantMax;',
    replace: 'return this.#inFlight < inFlightMax;',
    test: FAIR_QUEUE_TEST,
  },
  {
    name: 'Free places go to the merchants in turn.',
    file: FAIR_QUEUE,
    find: 'this.#ready.delete(lane);\n      waiter?.admit();',
    replace: 'waiter?.admit();',
    test: FAIR_QUEUE_TEST,
  },
  {
    name: 'The line of a merchant is bounded.',
    file: FAIR_QUEUE,
    find: 'if (lane.waiting.size >= this.#options.waitingPerMerchantMax) return Promise.reject(this.#refusal(lane));',
    replace: '',
    test: FAIR_QUEUE_TEST,
  },
  {
    name: 'One merchant fills no batch that others wait for.',
    file: 'src/ledger/batcher.ts',
    find: "const owner = this.#options.turns?.ownerOf(item) ?? '';",
    replace: "const owner = '';",
    test: 'test/unit/batcher.test.ts',
  },
  {
    name: 'While others call, one merchant makes no long batches.',
    file: 'src/ledger/batcher.ts',
    find: 'return alone ? sizeMax : turns.partMax;',
    replace: 'return sizeMax;',
    test: 'test/unit/batcher.test.ts',
  },
  {
    name: 'What a body is made of is bounded before it is parsed, also on AWS-shaped routes.',
    file: 'src/bedrock/model-request-json.ts',
    find: '  refuseComplexity(body, COMPLEXITY);',
    replace: '',
    test: 'test/unit/model-request.test.ts',
  },
  {
    name: 'A burst of tokens spends no more queries than the budget has.',
    file: BUDGET,
    find: 'while (this.#fall(entry) + entry.pending > max - 1) {',
    replace: 'while (this.#fall(entry) > max - 1) {',
    test: BUDGET_TEST,
  },
  {
    name: 'A token that was good is not refused for what others send.',
    file: 'src/auth/bearer.ts',
    find: "known.seems === 'good' ? ofOurs(token, parts, from) : attempt",
    replace: 'known.seems !== known.seems ? ofOurs(token, parts, from) : attempt',
    test: BUDGET_TEST,
  },
  {
    name: 'Whoever has a /64 of IPv6 has one budget.',
    file: BUDGET,
    find: '.slice(0, 4)',
    replace: '.slice(0, 8)',
    test: BUDGET_TEST,
  },
  {
    name: 'The bodies of one merchant have a part of the memory.',
    file: 'src/http/body-budget.ts',
    find: 'if (held + bytes > this.#perOwnerMax) throw shareExceeded();',
    replace: '',
    test: 'test/unit/body-share.test.ts',
  },
  {
    name: 'Nothing is logged under a name that is not on the list.',
    file: 'src/observability/logger.ts',
    find: 'if (!KNOWN.has(name) || ',
    replace: 'if (',
    test: LOG_TEST,
  },
  {
    name: 'The whole line is scanned as it goes out.',
    file: 'src/observability/logger.ts',
    find: 'out.write(scrubLine(line));',
    replace: 'out.write(line);',
    test: LOG_TEST,
  },
  {
    name: 'A service that could be looked into does not start in production.',
    file: 'src/config/process-dangers.ts',
    find: / {2}\[\/\^--\(inspect[^\n]+\n/,
    replace: '',
    test: PROCESS_TEST,
  },
  {
    name: 'No function of the database is for everyone.',
    file: 'prisma/migrations/20261121199000_hardening/migration.sql',
    find: "EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', signature);",
    replace: '',
    test: 'test/server/catalog.test.ts',
  },
  {
    name: 'A clock that steps back adds no failures.',
    file: BUDGET,
    find: 'const passed = Math.max(0, now - entry.at);',
    replace: 'const passed = now - entry.at;',
    test: BUDGET_TEST,
    testName: 'a clock that steps back',
  },
  {
    name: 'A port behind an address is no other address.',
    file: BUDGET,
    find: 'const plain = withoutPort(address)',
    replace: 'const plain = address',
    test: BUDGET_TEST,
    testName: 'is counted as',
  },
  {
    name: 'Who left waits no longer to fail.',
    file: BUDGET,
    find: "else gone?.addEventListener('abort', leave, { once: true });",
    replace: '',
    test: BUDGET_TEST,
    testName: 'who waits and leaves',
  },
  {
    name: 'A text that is too long for the log is looked through before it is cut.',
    file: 'src/observability/scrub.ts',
    find: 'const clean = replaceShapes(text);',
    replace: 'const clean = replaceShapes(text.slice(0, LENGTH_MAX + 1));',
    test: 'test/unit/scrub.test.ts',
    testName: 'where it is cut',
  },
  {
    name: 'Only so many requests of a connection are worked on at a time.',
    file: PIPELINE,
    find: 'if (this.#running < AT_ONCE_MAX && this.#waiting.length === 0) {',
    replace: 'if (this.#running >= 0) {',
    test: UNREAD_TEST,
    testName: 'of a thousand requests',
  },
  {
    name: 'While requests of a connection wait, no more of them are read.',
    file: PIPELINE,
    find: 'if (this.#holds) this.#socket.pause();',
    replace: '',
    test: UNREAD_TEST,
    testName: 'pipelines on and on',
  },
  {
    name: 'A connection that takes nothing of an answer is cut.',
    file: STALLS,
    find: '      socket.destroy();\n',
    replace: '',
    test: UNREAD_TEST,
    testName: 'nobody reads',
  },
  {
    name: 'Whoever goes on reading is not cut, however large the answer.',
    file: STALLS,
    find: 'taken: bytesWritten - queued',
    replace: 'taken: bytesWritten',
    test: UNREAD_TEST,
    testName: 'HTTP/1.1, cleartext: who goes on',
  },
  {
    name: 'A stream of HTTP/2 whose client takes nothing is reset, though its connection lives.',
    file: STALLS,
    find: '      cutResponse(res);\n',
    replace: '',
    test: UNREAD_TEST,
    testName: 'nobody takes',
  },
  {
    name: 'Whoever goes on taking a stream of HTTP/2 is not reset.',
    file: 'src/http/server-http2.ts',
    find: 'this.piecesTaken += 1;',
    replace: '',
    test: UNREAD_TEST,
    testName: 'HTTP/2, cleartext: who goes on',
  },
  {
    name: 'However many ask for readiness, the database is asked once a second.',
    file: 'src/container.ts',
    find: "databaseReady: () => asked.get('', () => isSchemaReady(database)),",
    replace: 'databaseReady: () => asked.get(String(performance.now()), () => isSchemaReady(database)),',
    test: 'test/server/readiness.test.ts',
    testName: 'however many',
  },
  {
    name: 'What was known of the database is not ready for longer than a second.',
    file: 'src/container.ts',
    find: 'ttlMs: READY_KEPT_MS,',
    replace: 'ttlMs: READY_KEPT_MS * 1_000,',
    test: 'test/server/readiness.test.ts',
    testName: 'readiness fails',
  },
];
