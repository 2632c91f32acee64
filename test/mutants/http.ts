import type { Mutant } from '../../scripts/mutants/mutant.ts';

const READ_BODY = 'src/http/steps/read-body.ts';
const READ_BODY_TEST = 'test/unit/read-body.test.ts';
const SCRUB = 'src/observability/scrub.ts';

/** What comes in, how much of it, and what of it may be written down. */
export const HTTP: readonly Mutant[] = [
  {
    name: 'A body that declares too much is refused before it is read.',
    file: READ_BODY,
    find: 'if (declaredBytes !== undefined && declaredBytes > options.bytesMax) throw tooLarge(options.bytesMax);',
    replace: '',
    test: READ_BODY_TEST,
  },
  {
    name: 'A body without a declared length has a limit.',
    file: READ_BODY,
    find: 'if (bytes > bytesMax) throw bytes > UNDECLARED_BYTES_MAX ? lengthRequired() : tooLarge(bytesMax);',
    replace: '',
    test: READ_BODY_TEST,
  },
  {
    name: 'All bodies together have a limit.',
    file: 'src/http/body-budget.ts',
    find: 'if (this.#bytesInUse + bytes > this.#bytesMax) return false;',
    replace: '',
    test: READ_BODY_TEST,
  },
  {
    name: 'What a body had reserved is given back.',
    file: 'src/http/body-budget.ts',
    find: 'this.#budget.release(this.#bytesTaken);',
    replace: '',
    test: READ_BODY_TEST,
  },
  {
    name: 'A body that was cut off is not taken for a whole one.',
    file: READ_BODY,
    find: 'return aborted || stream?.closed === true || (req.destroyed && !req.readableEnded);',
    replace: 'return aborted && stream?.closed === false;',
    test: READ_BODY_TEST,
  },
  {
    name: 'A compressed body is refused.',
    file: READ_BODY,
    find: "if (encoding === undefined || encoding.trim().toLowerCase() === 'identity') return;",
    replace: 'if (encoding !== null) return;',
    test: READ_BODY_TEST,
  },
  {
    name: 'No token of ours is written to the log.',
    file: SCRUB,
    find: /\[\/mb\[ko\]_[^\n]+\n/,
    replace: '\n',
    test: 'test/unit/scrub.test.ts',
  },
  {
    name: 'No bearer credential is written to the log.',
    file: SCRUB,
    find: /\[\/\\b\(Bearer\|Basic\)[^\n]+\n/,
    replace: '\n',
    test: 'test/unit/scrub.test.ts',
  },
  {
    name: 'No text in the log is longer than a thousand characters.',
    file: 'src/observability/logger.ts',
    find: "typeof value === 'string' ? scrub(value) : value",
    replace: "typeof value === 'string' ? value.concat(scrub('')) : value",
    test: 'test/unit/scrub.test.ts',
  },
  {
    name: 'The message of an error is not logged: it may hold what a caller sent.',
    file: 'src/observability/logger.ts',
    find: "chain.push(codes.length > 0 ? `${one.name}(${codes.join(' ')})` : one.name);",
    replace: "chain.push(codes.length > 0 ? `${one.name}(${codes.join(' ')})` : one.name, one.message);",
    test: 'test/unit/scrub.test.ts',
  },
];
