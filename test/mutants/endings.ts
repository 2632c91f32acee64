import type { Mutant } from '../../scripts/mutants/mutant.ts';

const WATCH = 'src/gateway/watch.ts';
const RIGHTS = 'src/ledger/rights-store.ts';
const WHILE_ALLOWED = 'src/http/while-allowed.ts';
const LOOKS = 'test/unit/watch.test.ts';
const EXPORTS = 'test/server/revocation-exports.test.ts';
const CRASH_LOG = 'test/server/crash-log.test.ts';

/** What ends: answers whose right has ended, however slow the reader and Postgres are; and a process, without a word of what it was told. */
export const ENDINGS: readonly Mutant[] = [
  {
    name: 'A look that is answered late ends calls, and its round.',
    file: WATCH,
    find: 'looks.add(look);',
    replace: 'looks.clear();\n        looks.add(look);',
    test: LOOKS,
    testName: 'late ends calls',
  },
  {
    name: 'A look that is answered after its limit is not thrown away.',
    file: WATCH,
    find: 'const ended = await this.#parts.rights.ended(rights);',
    replace:
      'const ended = await within(this.#parts.lookTimeoutMs ?? 2_000, this.#parts.rights.ended(rights), () => new Error());',
    test: EXPORTS,
    testName: 'a Postgres that takes longer',
  },
  {
    name: 'A look of an earlier round does not end a later one.',
    file: WATCH,
    find: 'const looks = new Set<Promise<void>>();',
    replace:
      'const looks = ((this as unknown as { looks?: Set<Promise<void>> }).looks ??= new Set<Promise<void>>());',
    test: LOOKS,
  },
  {
    name: 'Looks that nobody answers do not take all connections.',
    file: WATCH,
    find: 'if (this.#unanswered < UNANSWERED_MAX) {',
    replace: '{',
    test: LOOKS,
  },
  {
    name: "An operator's export ends when the key is revoked.",
    file: RIGHTS,
    find: 'WHERE k.revoked_at IS NULL AND k.expires_at',
    replace: 'WHERE k.expires_at',
    test: EXPORTS,
    testName: "operator's key",
  },
  {
    name: "An operator's export ends when the key expires.",
    file: RIGHTS,
    find: ' AND k.expires_at > clock_timestamp())`',
    replace: ')`',
    test: EXPORTS,
    testName: "operator's key",
  },
  {
    name: 'An export that nobody reads is cut when its right ends, and not when it is read on.',
    file: WHILE_ALLOWED,
    find: 'if (res.headersSent) cutResponse(res);',
    replace: '',
    test: EXPORTS,
    testName: 'its API key is revoked',
  },
  {
    name: 'An export that has not begun is refused in words when its right ends.',
    file: WHILE_ALLOWED,
    find: 'if (res.headersSent) cutResponse(res);',
    replace: 'cutResponse(res);',
    test: EXPORTS,
    testName: 'refused in words',
  },
  {
    name: 'An export of usage does not begin when its right ended while its first page was read.',
    file: 'src/http/handlers/usage/export.ts',
    find: 'assertHeld();',
    replace: '',
    test: EXPORTS,
    testName: 'refused in words',
  },
  {
    name: 'An export ends when the API key of its reader is revoked, and not only with the merchant.',
    file: WHILE_ALLOWED,
    find: 'right: { merchantId, apiKeyId }',
    replace: 'right: { merchantId }',
    test: EXPORTS,
    testName: 'its API key is revoked',
  },
  {
    name: 'An export ends when the JWT of its reader runs out.',
    file: WHILE_ALLOWED,
    find: 'apiKeyId }, expiresAtMs };',
    replace: 'apiKeyId } };',
    test: EXPORTS,
    testName: 'JWT',
  },
  {
    name: 'An export of the audit trail ends with the right of its reader.',
    file: 'src/http/handlers/audit/export.ts',
    find: 'return whileAllowed(context, (assertHeld) => write(context, chain, span, assertHeld));',
    replace: 'return write(context, chain, span, () => undefined);',
    test: EXPORTS,
    testName: 'its API key is revoked',
  },
  {
    name: 'No name in ALLOW_AMBIENT_AWS turns the check of certificates off in production.',
    file: 'src/config/ambient.ts',
    find: 'isFinal(name) || !allowed',
    replace: '!allowed',
    test: 'test/unit/config.test.ts',
  },
  {
    name: 'What keeps certificates checked in production is told which environment it is.',
    file: 'src/config/env.ts',
    find: 'config.allowAmbientAws, config.environment)',
    replace: 'config.allowAmbientAws)',
    test: 'test/unit/config.test.ts',
  },
  {
    name: 'An error that nobody catches does not reach standard error as Node prints it.',
    file: 'src/main.ts',
    find: '\nendOnCrash();\n',
    replace: '\n',
    test: CRASH_LOG,
  },
  {
    name: 'An error that throws when it is looked at ends the process with a line all the same.',
    file: 'src/observability/crash.ts',
    find: 'logger.error(EVENT);',
    replace: '',
    test: CRASH_LOG,
    testName: 'odd',
  },
  {
    name: 'A message is not logged as the place of its error, whatever its lines look like.',
    file: 'src/observability/logger.ts',
    find: 'stack.indexOf(message) + message.length',
    replace: '0',
    test: 'test/unit/scrub.test.ts',
  },
];
