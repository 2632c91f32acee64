import type { BedrockModels } from '../bedrock/models-aws.ts';
import type { Standing } from '../bedrock/model-standing.ts';
import { leastPrivilegePolicy } from '../bedrock/policy.ts';
import type { PolicyStatement } from '../bedrock/policy-document.ts';
import type { PolicyTarget, PolicyUse } from '../bedrock/policy.ts';
import type { BedrockProbes } from '../bedrock/probes-aws.ts';
import type { ModelAvailability, Probe, Probed } from '../bedrock/probes.ts';
import {
  brokenCredential,
  deniedOf,
  findingOfCall,
  findingOfQuestion,
  isFinal,
  MODEL_ACCESS,
} from '../bedrock/verdicts.ts';
import type { Check, Finding } from '../bedrock/verdicts.ts';
import { ServiceError } from '../domain/errors.ts';
import type { Cell, CellAsk } from './permission-ask.ts';
import type { RuntimeProbes } from './runtime-probes.ts';
import { unlessAborted } from './unless-aborted.ts';

export interface CellParts {
  probes: BedrockProbes;
  models: Pick<BedrockModels, 'getModel'>;
  runtime: RuntimeProbes;
}

/** What a step found; undefined where it did not decide. */
type Step = (asked: CellAsk, checks: Check[]) => Promise<Finding | undefined>;

/** Finds out about one model in one region, cheapest question first, and stops when an answer leaves nothing open. */
export class PermissionCell {
  readonly #parts: CellParts;

  constructor(parts: CellParts) {
    this.#parts = parts;
  }

  async test(asked: CellAsk): Promise<Cell> {
    const { model, resolved, standing, signal, mayAsk, ask } = asked;
    const checks: Check[] = [];
    let finding = standing.finding ?? UNDECIDED;
    for (const step of standing.finding === undefined ? this.#steps(asked) : []) {
      if (!signal.aborted) await unlessAborted(signal, mayAsk(), undefined);
      if (signal.aborted) {
        finding = finding === UNDECIDED ? OUT_OF_TIME : finding;
        break;
      }
      finding = better(await step(asked, checks), finding);
      if (isFinal(finding)) break;
    }
    if (finding === UNDECIDED) finding = undecided(asked, checks, ask.probes.length > 0);
    return { modelId: model.id, region: resolved.region, ...finding, checks };
  }

  #steps({ ask }: CellAsk): Step[] {
    return [
      this.#provisioned,
      this.#availability,
      this.#countTokens,
      ...(ask.probes.includes('invalid-body') ? [this.#invalidBody] : []),
      ...(ask.probes.includes('paid') ? [this.#paid] : []),
    ];
  }

  readonly #provisioned: Step = async ({ model, resolved, signal }, checks) => {
    if (model.resource !== 'provisioned-model') return undefined;
    const probe = 'GetProvisionedModelThroughput';
    try {
      const found = await this.#parts.models.getModel({ resolved, modelId: model.id, signal });
      const why = found === undefined ? 'The credential may not ask.' : `Its status is ${found.status}.`;
      checks.push({ probe, outcome: found === undefined ? 'denied' : 'ok', why });
      return undefined;
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      checks.push({ probe, outcome: 'failed', why: error.detail });
      return findingOfServiceError(probe, error);
    }
  };

  readonly #availability: Step = async ({ resolved, standing, signal }, checks) => {
    const { baseModelId, target } = standing;
    if (baseModelId === undefined) return undefined;
    const probe = 'GetFoundationModelAvailability';
    const answer = await this.#parts.probes.availability({ resolved, signal }, baseModelId);
    checks.push(checkOf(probe, answer, saidOf, () => statementsFor(target, 'discover')));
    if ('failure' in answer) return findingOfQuestion(probe, answer.failure);
    return findingOfAvailability(answer.answer, target?.kind === 'foundation-model');
  };

  readonly #countTokens: Step = async ({ ask, resolved, standing, signal }, checks) => {
    const { baseModelId = '', target } = standing;
    // AWS counts for Anthropic's models alone, by their bare ids.
    if (!baseModelId.startsWith('anthropic.')) return undefined;
    const question = { merchantId: ask.merchant.id, resolved, modelId: baseModelId, signal };
    const answer = await this.#parts.runtime.countTokens(question);
    const proves = () => 'bedrock:CountTokens is allowed; that says nothing of bedrock:InvokeModel.';
    checks.push(checkOf('CountTokens', answer, proves, () => statementsFor(target, 'count-tokens')));
    return 'failure' in answer && answer.failure.kind === 'credential-broken'
      ? brokenCredential('CountTokens', answer.failure.why)
      : undefined;
  };

  readonly #invalidBody: Step = async ({ ask, model, resolved, standing, signal }, checks) => {
    const question = { merchantId: ask.merchant.id, resolved, modelId: model.id, signal };
    const probed = await this.#parts.runtime.invalidBody(question);
    return called('invalid-body', probed, standing, checks);
  };

  readonly #paid: Step = async ({ ask, model, resolved: { region }, standing, signal }, checks) => {
    const { probed, callId } = await this.#parts.runtime.paid(ask, { modelId: model.id, region, signal });
    return { ...called('paid', probed, standing, checks), ...(callId !== undefined && { callId }) };
  };
}

const ANSWERED = {
  'invalid-body': 'AWS answered a body that is no request as if it were one.',
  paid: 'AWS answered a call of one token. That proves bedrock:InvokeModel; streams need bedrock:InvokeModelWithResponseStream as well.',
};

/** A call of the model: its answer is a check, and a finding. */
function called(
  probe: 'invalid-body' | 'paid',
  probed: Probed<unknown>,
  { target }: Standing,
  checks: Check[],
): Finding {
  const statements = statementsFor(target, 'invoke');
  const why = ANSWERED[probe];
  checks.push(
    checkOf(
      probe,
      probed,
      () => why,
      () => statements,
    ),
  );
  return 'failure' in probed
    ? findingOfCall(probe, probed.failure, statements)
    : { verdict: 'allowed', probe, certainty: 'proven', why };
}

/** A question that came to nothing takes nothing back: the answer to one before it stands. */
function better(found: Finding | undefined, before: Finding): Finding {
  if (found === undefined) return before;
  const nothing = found.verdict === 'unknown' || found.verdict === 'throttled';
  return nothing && before.verdict !== 'unknown' ? before : found;
}

const UNDECIDED: Finding = { verdict: 'unknown', probe: 'identifier', certainty: 'none', why: '' };
export const OUT_OF_TIME: Finding = {
  ...UNDECIDED,
  why: 'The time of the test was up before this could be found out. Ask about fewer models and regions.',
};

/** Undefined where the model is not one that a policy can name. */
function statementsFor(target: PolicyTarget | undefined, use: PolicyUse): PolicyStatement[] | undefined {
  if (target === undefined) return undefined;
  try {
    return leastPrivilegePolicy({ targets: [target], uses: [use] }).Statement;
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'model.id_invalid') return undefined;
    throw error;
  }
}

export function checkOf<T>(
  probe: Probe,
  probed: Probed<T>,
  said: (answer: T) => string,
  statements: () => PolicyStatement[] | undefined,
): Check {
  if ('answer' in probed) return { probe, outcome: 'ok', why: said(probed.answer) };
  const { failure } = probed;
  const denied = failure.denial && { denied: deniedOf(failure, statements()) };
  return { probe, outcome: failure.kind, why: failure.why, ...denied };
}

function saidOf({ agreement, authorization, entitlement, region }: ModelAvailability): string {
  return `Agreement ${agreement}, authorization ${authorization}, entitlement ${entitlement}, region ${region}.`;
}

/** AWS speaks of the account here, never of the principal: it can say no, and cannot say yes. */
function findingOfAvailability(answer: ModelAvailability, direct: boolean): Finding | undefined {
  const probe = 'GetFoundationModelAvailability';
  if (direct && answer.region === 'NOT_AVAILABLE')
    return { verdict: 'not-in-this-region', probe, certainty: 'proven', why: saidOf(answer) };
  const withheld =
    answer.authorization === 'NOT_AUTHORIZED' ||
    answer.entitlement === 'NOT_AVAILABLE' ||
    ['NOT_AVAILABLE', 'PENDING', 'ERROR'].includes(answer.agreement);
  if (!withheld) return undefined;
  const why = `${saidOf(answer)} AWS opens some models at their first call, so this is not certain.`;
  return { verdict: 'model-not-available-to-account', probe, certainty: 'likely', why, fix: MODEL_ACCESS };
}

function findingOfServiceError(probe: Probe, { code, detail }: ServiceError): Finding | undefined {
  if (code === 'model.id_invalid')
    return { verdict: 'not-in-this-region', probe, certainty: 'proven', why: detail };
  if (code === 'upstream.throttled') return findingOfQuestion(probe, { kind: 'throttled', why: detail });
  return code === 'credential.refused_by_aws' ? brokenCredential(probe, detail) : undefined;
}

/** Nobody said no. A throttled list is the reason to name where there was one; else it is that yes costs something. */
function undecided({ listings, standing }: CellAsk, checks: readonly Check[], more: boolean): Finding {
  for (const [probe, listed] of [
    ['ListFoundationModels', listings.models],
    ['ListInferenceProfiles', listings.profiles],
  ] as const) {
    const found = 'failure' in listed ? findingOfQuestion(probe, listed.failure) : undefined;
    if (found !== undefined) return found;
  }
  const probe = checks.at(-1)?.probe ?? 'identifier';
  const why = `No free question shows whether bedrock:InvokeModel is allowed, and none said that it is not. ${standing.noTarget ?? ''}`;
  const fix = more
    ? 'See the checks for what stood in the way.'
    : 'Ask again with probes ["invalid-body"], which is free but looks like an attack to some monitors, or ["paid"] with consent.';
  return { verdict: 'unknown', probe, certainty: 'none', why: why.trim(), fix };
}
