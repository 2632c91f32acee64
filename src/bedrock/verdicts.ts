import type { MissingStatement } from './access-denied.ts';
import { howToAllow } from './access-denied.ts';
import type { PolicyStatement } from './policy-document.ts';
import type { Probe, ProbeFailure } from './probes.ts';

export const VERDICTS = [
  'allowed',
  'denied-by-iam',
  'model-not-available-to-account',
  'not-in-this-region',
  'needs-inference-profile',
  'throttled',
  'credential-broken',
  'unknown',
] as const;
export type Verdict = (typeof VERDICTS)[number];

/** `proven`: AWS said so of this very thing. `likely`: AWS said something that means so in all cases we know of. `none`: nobody knows. */
export const CERTAINTIES = ['proven', 'likely', 'none'] as const;
export type Certainty = (typeof CERTAINTIES)[number];

/** Whether a credential may call one model in one region, which probe says so, and how sure that is. */
export interface Finding {
  verdict: Verdict;
  probe: Probe;
  certainty: Certainty;
  /** What was found, and what it does not prove. */
  why: string;
  /** What to do about it. */
  fix?: string;
  /** Profiles that reach a model which is not to be had directly. */
  profiles?: readonly string[];
  denied?: Denied;
  /** The ledger's row of the paid probe. */
  callId?: string;
}

/** An action that AWS denied; members that AWS does not tell are left out. */
export interface Denied {
  action: string;
  resource?: string;
  principal?: string;
  /**
   * To add to the policy that is silent, the principal's or the guard rail's: everything that the call needs, also what AWS would name only
   * after the first is allowed.
   */
  statements?: readonly (PolicyStatement | MissingStatement)[];
}

/** What one probe brought, whether or not it decided. */
export interface Check {
  probe: Probe;
  outcome: 'ok' | ProbeFailure['kind'];
  why: string;
  denied?: Denied;
}

/** Verdicts after which nothing more is asked: no further answer would change them. */
export function isFinal({ verdict, certainty }: Finding): boolean {
  return verdict !== 'unknown' && certainty === 'proven';
}

/**
 * What a refused question about the control plane leaves of a cell: what it asked for stays unknown. A denial of it is none of the call.
 */
export function findingOfQuestion(probe: Probe, failure: ProbeFailure): Finding | undefined {
  const { kind, why } = failure;
  if (kind === 'credential-broken') return brokenCredential(probe, why);
  if (kind === 'throttled') return throttled(probe, why);
  return undefined;
}

/** What a refused call of the model says: of the invalid body, and of the paid one. */
export function findingOfCall(
  probe: 'invalid-body' | 'paid',
  failure: ProbeFailure,
  statements: readonly PolicyStatement[] | undefined,
): Finding {
  const { kind, why } = failure;
  switch (kind) {
    case 'denied':
      return findingOfDenial(probe, failure, statements);
    case 'model-access':
      return {
        verdict: 'model-not-available-to-account',
        probe,
        certainty: 'proven',
        why,
        fix: MODEL_ACCESS,
      };
    case 'throttled':
      return throttled(probe, why);
    case 'credential-broken':
      return brokenCredential(probe, why);
    case 'not-found':
      return findingOfNotFound(probe, why);
    case 'invalid':
      return findingOfValidation(probe, why);
    case 'failed':
      return { verdict: 'unknown', probe, certainty: 'none', why };
  }
}

function findingOfDenial(
  probe: Probe,
  failure: ProbeFailure,
  statements: readonly PolicyStatement[] | undefined,
): Finding {
  const { denial, why } = failure;
  return {
    verdict: 'denied-by-iam',
    probe,
    // What AWS puts in words of its own it may have found elsewhere than in a policy.
    certainty: denial?.by === 'unsaid' ? 'likely' : 'proven',
    why: `AWS denied the call. ${why}`,
    ...(denial && { fix: howToAllow(denial) }),
    denied: deniedOf(failure, statements),
  };
}

export const MODEL_ACCESS =
  'Request access to the model in the Bedrock console of this account, and accept its agreement; AWS Marketplace models need aws-marketplace:Subscribe once.';

/** Messages of ResourceNotFoundException where the model is there, but not for this account. Source: as users report them. */
const NOT_OPENED = /legacy|use case/i;
const OPEN_IT =
  "Do what AWS says: fill in the provider's form about your use case in the Bedrock console, or name another model than one that its provider ends.";
/** Messages of ValidationException that are about the model and not about the body. Source: answers of InvokeModel as users report them. */
const NO_SUCH_MODEL = /model identifier is invalid|end of its life|could not resolve the foundation model/i;
/** Those that are about the body. Any other may have come before permissions were looked at ("Operation not allowed"). */
const ABOUT_THE_BODY = /malformed|\b(json|schema|body|parse|field required)\b/i;
const ON_DEMAND = /on-demand throughput isn.t supported/i;
const AFTER_PERMISSION =
  'AWS looked at the body and refused it, which it is known to do only after it allowed the call; AWS does not promise that order. It holds for bedrock:InvokeModel; streams need bedrock:InvokeModelWithResponseStream as well.';

function findingOfNotFound(probe: Probe, why: string): Finding {
  return NOT_OPENED.test(why)
    ? { verdict: 'model-not-available-to-account', probe, certainty: 'likely', why, fix: OPEN_IT }
    : noSuchModel(probe, why);
}

function findingOfValidation(probe: 'invalid-body' | 'paid', why: string): Finding {
  if (ON_DEMAND.test(why)) {
    const fix =
      'Name an inference profile that contains the model; GET /inference-profiles of AWS lists them.';
    return { verdict: 'needs-inference-profile', probe, certainty: 'proven', why, fix };
  }
  if (NO_SUCH_MODEL.test(why)) return noSuchModel(probe, why);
  return ABOUT_THE_BODY.test(why)
    ? { verdict: 'allowed', probe, certainty: 'likely', why: `${AFTER_PERMISSION} ${why}` }
    : { verdict: 'unknown', probe, certainty: 'none', why };
}

function noSuchModel(probe: Probe, why: string): Finding {
  const fix = 'Check the id, and in which regions AWS offers the model.';
  return { verdict: 'not-in-this-region', probe, certainty: 'likely', why, fix };
}

function throttled(probe: Probe, why: string): Finding {
  const fix = 'Try again in a minute; if it stays, ask AWS for a higher quota.';
  return { verdict: 'throttled', probe, certainty: 'proven', why, fix };
}

export function brokenCredential(probe: Probe, why: string): Finding {
  const fix = 'Test it with POST /credentials/:cid/test, and store a new one.';
  return { verdict: 'credential-broken', probe, certainty: 'proven', why, fix };
}

/** @param statements everything that the call needs; where it is not known, what AWS named. */
export function deniedOf(
  { denial }: ProbeFailure,
  statements: readonly (PolicyStatement | MissingStatement)[] | undefined,
): Denied {
  const { by, action = '', resource, principal } = denial ?? {};
  const useless = by === 'explicit-deny' || by === 'model-access';
  return {
    action,
    ...(resource !== undefined && { resource }),
    ...(principal !== undefined && { principal }),
    ...(!useless && statements !== undefined && statements.length > 0 && { statements }),
  };
}
