import type { Mutant } from '../../scripts/mutants/mutant.ts';

const POLICY = 'src/bedrock/policy.ts';
const CELL = 'src/gateway/permission-cell.ts';
const RUNTIME = 'src/gateway/runtime-probes.ts';
const TEST = 'src/gateway/permission-test.ts';
const AUTHORIZER = 'test/unit/policy-authorizer.test.ts';
const MATRIX = 'test/server/permission-test.test.ts';

/** What a credential may do: nothing is claimed that was not shown, and nothing is allowed that was not asked. */
export const PERMISSIONS: readonly Mutant[] = [
  {
    name: 'A policy lets models behind a profile be called through the profile only.',
    file: POLICY,
    find: "        ArnLike: { 'bedrock:InferenceProfileArn': sorted(profiles) },",
    replace: "        ArnLike: { 'bedrock:InferenceProfileArn': ['*', ...profiles.slice(0, 0)] },",
    test: ['test/unit/policy.test.ts', AUTHORIZER],
  },
  {
    name: 'A policy for a profile names the model in every region that it routes to.',
    file: POLICY,
    find: "if (kind !== 'inference-profile' || !name.startsWith('global.')) return modelArns;",
    replace: "if (kind !== 'inference-profile' || !name.startsWith('global.')) return modelArns.slice(0, 1);",
    test: AUTHORIZER,
  },
  {
    name: 'A policy for a global profile names the model without a region.',
    file: POLICY,
    find: "    foundationModelArn(modelId, '', partition),",
    replace: '    foundationModelArn(modelId, region, partition),',
    test: 'test/unit/policy.test.ts',
  },
  {
    name: 'A policy gives no right that was not asked for.',
    file: POLICY,
    find: 'INVOKING.filter(([use]) => uses.has(use))',
    replace: 'INVOKING.filter(([use]) => uses.has(use) || uses.size > 0)',
    test: AUTHORIZER,
  },
  {
    name: 'What could be read as a pattern does not get into a policy.',
    file: POLICY,
    find: 'if (!legal || (isProfile(target) && !target.modelArns.every(isModelArn))) throw invalid();',
    replace: 'if (isProfile(target) && !target.modelArns.every(isModelArn)) throw invalid();',
    test: 'test/unit/policy.test.ts',
  },
  {
    name: 'The policy of a role lets the tokens of no other models be counted.',
    file: 'src/gateway/role-policy.ts',
    find: "counted: arn.includes(':foundation-model/') ? [arn] : [] };",
    replace: "counted: [arn.replace(/[^/]*$/, '*')] };",
    test: 'test/unit/role-kits.test.ts',
  },
  {
    name: 'A role gets no policy that IAM would refuse for its length.',
    file: 'src/gateway/role-kits.ts',
    find: 'if (size <= INLINE_POLICIES_MAX) return policy;',
    replace: 'if (size > 0) return policy;',
    test: 'test/unit/role-kits.test.ts',
  },
  {
    name: 'What begins a template of HCL is text in a document.',
    file: 'src/credentials/role-templates.ts',
    find: "() => '$${'",
    replace: "'$${'",
    test: 'test/unit/role-kits.test.ts',
  },
  {
    name: 'That tokens may be counted is not taken for the right to call the model.',
    file: CELL,
    find: "    return 'failure' in answer && answer.failure.kind === 'credential-broken'",
    replace: `    if ('answer' in answer)
      return { verdict: 'allowed', probe: 'CountTokens', certainty: 'proven', why: 'counted' };
    return answer.failure.kind === 'credential-broken'`,
    test: MATRIX,
  },
  {
    name: 'An invalid body is sent on request only.',
    file: CELL,
    find: "...(ask.probes.includes('invalid-body') ? [this.#invalidBody] : []),",
    replace: 'this.#invalidBody,',
    test: MATRIX,
  },
  {
    name: 'A refused body makes a yes likely and never proven.',
    file: 'src/bedrock/verdicts.ts',
    find: "? { verdict: 'allowed', probe, certainty: 'likely',",
    replace: "? { verdict: 'allowed', probe, certainty: 'proven',",
    test: 'test/unit/verdicts.test.ts',
  },
  {
    name: 'A model that AWS does not find is not allowed for that.',
    file: 'src/bedrock/probes.ts',
    find: "if (type === 'ResourceNotFoundException') return { kind: 'not-found', why };",
    replace: "if (type === 'ResourceNotFoundException') return { kind: 'invalid', why };",
    test: 'test/unit/verdicts.test.ts',
  },
  {
    name: 'Only a complaint about the body is taken for a yes.',
    file: 'src/bedrock/verdicts.ts',
    find: 'return ABOUT_THE_BODY.test(why)',
    replace: 'return why !== ABOUT_THE_BODY.source',
    test: 'test/unit/verdicts.test.ts',
  },
  {
    name: 'A denial that AWS does not explain is no proof about policies.',
    file: 'src/bedrock/verdicts.ts',
    find: "certainty: denial?.by === 'unsaid' ? 'likely' : 'proven',",
    replace: "certainty: 'proven',",
    test: 'test/unit/verdicts.test.ts',
  },
  {
    name: 'A question that comes to nothing takes back no answer.',
    file: CELL,
    find: "return nothing && before.verdict !== 'unknown' ? before : found;",
    replace: 'return nothing ? found : found;',
    test: MATRIX,
  },
  {
    name: 'The paid probe needs consent.',
    file: 'src/http/handlers/permissions/test.ts',
    find: "!probes.includes('paid') || consent === true",
    replace: "!probes.includes('paid') || consent !== false",
    test: MATRIX,
  },
  {
    name: 'The paid probe asks for one token.',
    file: RUNTIME,
    find: 'inferenceConfig: { maxTokens: 1 }',
    replace: 'inferenceConfig: { maxTokens: 100 }',
    test: MATRIX,
  },
  {
    name: 'A permission test is on record.',
    file: TEST,
    find: '    await this.#record(ask);',
    replace: '    if (ask.regions.length > 5) await this.#record(ask);',
    test: MATRIX,
  },
  {
    name: 'A permission test is on record before its credential is opened.',
    file: TEST,
    find: `    await this.#record(ask);
    const home = await this.#parts.resolver.resolve({ ...ask, anew: true, mayAsk });`,
    replace: `    const home = await this.#parts.resolver.resolve({ ...ask, anew: true, mayAsk });
    await this.#record(ask);`,
    test: 'test/unit/permission-test.test.ts',
  },
  {
    name: 'STS keeps no permission test waiting beyond its time.',
    file: TEST,
    find: 'const who = await unlessAborted(signal, this.#whoIs(home), nobodyKnown(home));',
    replace: 'const who = await this.#whoIs(home); void nobodyKnown;',
    test: 'test/unit/permission-test.test.ts',
  },
  {
    name: "A permission test tells nothing of the service's own account.",
    file: TEST,
    find: "return home.source === 'service-default' ? withoutTheServicesAccount(report) : report;",
    replace: "return home.source === 'direct' ? withoutTheServicesAccount(report) : report;",
    test: MATRIX,
  },
  {
    name: 'A permission test ends when its time is up.',
    file: TEST,
    find: 'AbortSignal.any([timeUp, ask.callerGone, ended.signal])',
    replace: 'AbortSignal.any([ask.callerGone, ended.signal])',
    test: 'test/unit/permission-test.test.ts',
  },
  {
    name: "A denial tells nothing of the service's own account.",
    file: 'src/bedrock/aws-errors.ts',
    find: "return source === 'service-default' && OF_AN_ACCOUNT.test(message) ? '' : message;",
    replace: "return source === 'session' && OF_AN_ACCOUNT.test(message) ? '' : message;",
    test: 'test/unit/access-denied.test.ts',
  },
  {
    name: 'No statement is offered against an explicit deny.',
    file: 'src/bedrock/access-denied.ts',
    find: "if (by === 'explicit-deny' || by === 'model-access' || resource === undefined) return undefined;",
    replace: "if (by === 'model-access' || resource === undefined) return undefined;",
    test: 'test/unit/access-denied.test.ts',
  },
  {
    name: 'The test of the environment opens the vault anew.',
    file: 'src/gateway/environment-test.ts',
    find: 'found.material = await this.#parts.vault.reopen(',
    replace: 'found.material = await (this.#parts.vault as Vault).open(',
    test: 'test/server/environment-test.test.ts',
  },
];
