import type { Mutant } from '../../scripts/mutants/mutant.ts';

const SHARPEN = 'src/gateway/sharpen.ts';
const QUESTION = 'src/bedrock/count-question.ts';
const TEST = 'test/server/sharpen.test.ts';

/** Near a limit AWS counts once. */
export const SHARPENED: readonly Mutant[] = [
  {
    name: 'More is held than AWS counts, by a margin.',
    file: SHARPEN,
    find: 'return bounded.boundWith(tokens + MARGIN_TOKENS);',
    replace: 'return bounded.boundWith(tokens);',
    test: TEST,
    testName: 'is served by converse,',
  },
  {
    name: 'A merchant far over its limit is refused without a question to AWS.',
    file: SHARPEN,
    find: 'return left - output >= input / BYTES_PER_TOKEN_MOST ||',
    replace: 'return left > output ||',
    test: TEST,
    testName: 'without a question, for a merchant far over',
  },
  {
    name: 'At most four questions of a merchant are with AWS at once.',
    file: SHARPEN,
    find: 'new PerMerchant({ max: IN_FLIGHT_MAX })',
    replace: 'new PerMerchant({ max: Infinity })',
    test: TEST,
    testName: 'while four of the merchant',
  },
  {
    name: 'A refusal waits two seconds for a count, and no longer.',
    file: SHARPEN,
    find: 'AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), paid.callerGone])',
    replace: 'paid.callerGone',
    test: TEST,
    testName: 'answers slowly',
  },
  {
    name: 'What CountTokens does not take, and a model may read, is not left out of a count.',
    file: QUESTION,
    find: 'if (!others.every((name) => NOT_READ.has(name))) return undefined;',
    replace: '',
    test: TEST,
    testName: 'a body that CountTokens does not take whole',
  },
  {
    name: 'What AWS adds to a body is not held at a count of the body.',
    file: SHARPEN,
    find: 'request.bound.inputTokens === UNBOUNDED_INPUT || ',
    replace: '',
    test: TEST,
    testName: 'a body that AWS adds to',
  },
  {
    name: 'A model behind an inference profile is counted by its own id.',
    file: SHARPEN,
    find: 'modelId: bounded.baseModelId,',
    replace: 'modelId: paid.modelId,',
    test: TEST,
    testName: 'behind an inference profile',
  },
];
