import type { Mutant } from '../../scripts/mutants/mutant.ts';

const MODEL_ID = 'src/bedrock/model-id.ts';
const EGRESS = 'src/bedrock/egress.ts';
const EXCHANGE = 'src/bedrock/exchange.ts';
const RUNTIME = 'src/bedrock/runtime-aws.ts';

/** The call at AWS: where it goes, who signs it, and what its failure means for the ledger. */
export const BEDROCK: readonly Mutant[] = [
  {
    name: "A call cannot name a model of another account than the credential's.",
    file: MODEL_ID,
    find: 'if (model.accountId !== undefined && model.accountId !== scope.accountId) {',
    replace: 'if (model.accountId !== undefined && scope.accountId === undefined) {',
    test: 'test/unit/model-id.test.ts',
  },
  {
    name: 'An ARN with an account is refused where the account of the credential is not known.',
    file: MODEL_ID,
    find: 'model.accountId !== undefined && model.accountId !== scope.accountId',
    replace:
      'model.accountId !== undefined && scope.accountId !== undefined && model.accountId !== scope.accountId',
    test: 'test/unit/model-id.test.ts',
  },
  {
    name: "A call cannot name a model of another region than the credential's.",
    file: MODEL_ID,
    find: 'if (model.region !== scope.region) {',
    replace: 'if (model.region === undefined) {',
    test: 'test/unit/model-id.test.ts',
  },
  {
    name: 'A model id cannot walk up in the path.',
    file: MODEL_ID,
    find: String.raw`|\.(?!\.))`,
    replace: String.raw`|\.|\/)`,
    test: 'test/unit/model-id.test.ts',
  },
  {
    name: 'A host of Bedrock is made from a region of the list and from nothing else.',
    file: EGRESS,
    find: 'if (!isBedrockRegion(region)) {',
    replace: "if (region === '') {",
    test: 'test/unit/egress.test.ts',
  },
  {
    name: 'A signed request leaves for the host that its client was built for, and for no other.',
    file: EGRESS,
    find: "if (request.hostname !== endpoint.hostname) return 'hostname';",
    replace: '',
    test: 'test/unit/egress.test.ts',
  },
  {
    name: 'A request that another key signed does not leave.',
    file: EGRESS,
    find: 'authorization.startsWith(start) &&',
    replace: "authorization.startsWith('AWS4-HMAC-SHA256 Credential=') &&",
    test: 'test/unit/egress.test.ts',
  },
  {
    name: 'Every request to Bedrock passes the guard at the exit.',
    file: 'src/bedrock/egress-aws.ts',
    find: 'if (problem !== undefined) {',
    replace: "if (problem === 'client already closed') {",
    test: ['test/contract/runtime-aws.test.ts', 'test/contract/models-aws.test.ts'],
  },
  {
    name: 'A pooled client signs for the credential it was built with and for no other.',
    file: RUNTIME,
    find: 'if (sameCredential(lease.client.credential, resolved.credential)) return lease;',
    replace: 'if (lease.client.credential.kind === resolved.credential.kind) return lease;',
    test: 'test/contract/runtime-aws.test.ts',
  },
  {
    name: 'A signed call does not follow a redirect.',
    file: RUNTIME,
    find: 'if (status >= 300 && status < 400) {',
    replace: 'if (status >= 300 && status < 300) {',
    test: 'test/contract/runtime-aws-failures.test.ts',
  },
  {
    name: 'A paid call is sent once: nothing repeats it.',
    file: RUNTIME,
    find: 'const response = await lease.client.send(await toPassThrough(call));',
    replace:
      'const input = await toPassThrough(call);\n      const response = await lease.client.send(input).catch(() => lease.client.send(input));',
    test: 'test/server/streams.test.ts',
    testName: 'a paid call is sent once',
  },
  {
    name: 'A call whose connection broke after its bytes had left is unknown, and not void.',
    file: EXCHANGE,
    find: "return new UpstreamError('upstream.incomplete', detail, 'unknown', { cause });",
    replace: "return new UpstreamError('upstream.incomplete', detail, 'no', { cause });",
    test: 'test/contract/runtime-aws-failures.test.ts',
    testName: 'AWS may have run it',
  },
  {
    name: 'A call that AWS did not answer in time is unknown, and not void.',
    file: EXCHANGE,
    find: "'AWS did not begin to answer in time.', 'unknown'",
    replace: "'AWS did not begin to answer in time.', 'no'",
    test: 'test/contract/runtime-aws-failures.test.ts',
    testName: 'AWS may have run it',
  },
  {
    name: 'A call that was given up after its bytes had left is unknown, and not void.',
    file: EXCHANGE,
    find: "return this.#phase === 'sent' ? 'unknown' : 'no';",
    replace: "return 'no';",
    test: 'test/contract/runtime-aws-failures.test.ts',
    testName: 'AWS may have run it',
  },
  {
    name: 'A call of which no byte left is void, and held against nobody.',
    file: EXCHANGE,
    find: "return new UpstreamError('upstream.unreachable', 'AWS could not be reached.', 'no', { cause });",
    replace:
      "return new UpstreamError('upstream.unreachable', 'AWS could not be reached.', 'unknown', { cause });",
    test: 'test/contract/runtime-aws-failures.test.ts',
    testName: 'nothing was sent',
  },
  {
    name: 'An internal error of AWS is unknown: the model may have run.',
    file: 'src/bedrock/aws-errors.ts',
    find: "execution: row?.charged === 'no' ? 'refused' : 'unknown',",
    replace: "execution: row?.charged !== undefined ? 'refused' : 'unknown',",
    test: 'test/unit/bedrock-edges.test.ts',
  },
  {
    name: 'A throttled call is void: the model did not run.',
    file: 'src/bedrock/aws-failures.ts',
    find: "ThrottlingException: { status: 429, code: 'upstream.throttled', ...LATER }",
    replace: "ThrottlingException: { status: 429, code: 'upstream.throttled', ...MAY_HAVE_RUN }",
    test: ['test/unit/bedrock-edges.test.ts', 'test/server/streams.test.ts'],
  },
  {
    name: 'Only headers on the list go on to AWS.',
    file: 'src/bedrock/headers.ts',
    find: /for \(const \[name, allowed\] of Object\.entries\(TO_AWS\)\) \{/,
    replace:
      "for (const name of Object.keys(headers)) if (typeof headers[name] === 'string') forwarded[name] = headers[name];\n  for (const [name, allowed] of Object.entries(TO_AWS)) {",
    test: 'test/unit/bedrock-edges.test.ts',
  },
];
