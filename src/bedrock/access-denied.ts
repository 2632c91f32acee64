import type { CredentialSource } from '../domain/credential.ts';
import type { Operation } from '../domain/usage.ts';
import { ACTION_OF_OPERATION, foundationModelArn } from './policy.ts';

/** What AWS says of a denial. `by` tells what denied, and so what has to be changed. */
export interface AccessDenial {
  by:
    | 'missing-permission'
    | 'explicit-deny'
    /** A limit on what policies can grant: of the organization, the principal, the session or the network. */
    | 'guard-rail'
    | 'model-access'
    /** Denied, and AWS did not say why. */
    | 'unsaid';
  /** `bedrock:InvokeModel` */
  action: string;
  resource?: string;
  /** Whom AWS denied: the user, or the session of a role. */
  principal?: string;
  /** What denied, in AWS's words: `a service control policy`. */
  policy?: string;
}

/** What must be added to the policy that is silent: the principal's, or the guard rail's. */
export interface MissingStatement {
  Effect: 'Allow';
  Action: string[];
  Resource: string[];
}

/** A call that AWS denied, as it was made. */
export interface DeniedCall {
  operation: Operation;
  /** As the request named it. */
  modelId: string;
  region: string;
  source: CredentialSource;
}

const IAM =
  /^User: (arn:[^\s]{1,512}) is not authorized to perform: ([a-z0-9-]{1,64}:[A-Za-z*]{1,128})(?: on resource: (arn:[^\s]{1,1024}|\*))?([^]{0,512})/;
/** Source: knowledge center of AWS, "bedrock-invokemodel-api-error", under model access. */
const MODEL_ACCESS =
  /don.t have access to the model|model access is denied|your account is not authorized|not subscribed|marketplace/i;
const EXPLICIT = / with an explicit deny in (an? [a-z -]{3,64})/;
const OWN_POLICY = 'an identity-based policy';
const NO_POLICY = / because no ([a-zA-Z -]{3,64}?) allows/;
/** Adding to a policy of the identity does not help where one of these is silent. */
const GUARD_RAIL = /service control|resource control|boundary|session|endpoint/i;

/** Reads AWS's message of an AccessDeniedException. */
export function readDenial(message: string, action: string): AccessDenial {
  const iam = IAM.exec(message);
  if (iam === null) return { by: MODEL_ACCESS.test(message) ? 'model-access' : 'unsaid', action };
  const [, principal = '', denied = action, resource, why = ''] = iam;
  return { ...reasonOf(why), action: denied, principal, ...(resource !== undefined && { resource }) };
}

function reasonOf(why: string): Pick<AccessDenial, 'by' | 'policy'> {
  const explicit = EXPLICIT.exec(why)?.[1];
  if (explicit !== undefined) return { by: 'explicit-deny', policy: explicit.trim() };
  const silent = NO_POLICY.exec(why)?.[1];
  return silent !== undefined && GUARD_RAIL.test(silent)
    ? { by: 'guard-rail', policy: silent }
    : { by: 'missing-permission' };
}

/**
 * Whether AWS may have denied a session of a role for its age: "Revoke active sessions" is an explicit deny in a policy of the role, and AWS's
 * words do not tell it from one of the action.
 */
export function mayBeEndOfSession(refusal: { type: string; message: string } | undefined): boolean {
  if (refusal?.type !== 'AccessDeniedException') return false;
  return readDenial(refusal.message, '').policy === OWN_POLICY;
}

/**
 * The denial of a call, with what AWS left out filled in where the call itself says it. Undefined parts stay so: a resource is never guessed
 * for what stands behind a profile.
 */
export function denialOfCall(message: string, { operation, modelId, region }: DeniedCall): AccessDenial {
  const denial = readDenial(message, ACTION_OF_OPERATION[operation]);
  if (denial.resource !== undefined || denial.by === 'model-access') return denial;
  const resource = resourceOf(modelId, region);
  return resource === undefined ? denial : { ...denial, resource };
}

/** Only what an id says for sure: an ARN is itself; an id whose first part is long is a provider's, and so a foundation model. */
function resourceOf(modelId: string, region: string): string | undefined {
  if (modelId.startsWith('arn:')) return modelId;
  return /^[a-z0-9]{4,}\.[a-z0-9.:-]+$/.test(modelId) &&
    !modelId.startsWith('global.') &&
    !modelId.startsWith('apac.')
    ? foundationModelArn(modelId, region)
    : undefined;
}

/** What to add. Undefined where no statement helps, or where it is not known which. */
export function missingStatement({ by, action, resource }: AccessDenial): MissingStatement | undefined {
  if (by === 'explicit-deny' || by === 'model-access' || resource === undefined) return undefined;
  return { Effect: 'Allow', Action: [action], Resource: [resource] };
}

/** What to do, in a sentence or two. */
export function howToAllow(denial: AccessDenial): string {
  const who = denial.principal ?? 'the principal of the credential';
  const what = `${denial.action}${denial.resource === undefined ? '' : ` on ${denial.resource}`}`;
  switch (denial.by) {
    case 'missing-permission':
      return `Allow ${who} the action ${what}. ${WHOLE_POLICY}`;
    case 'explicit-deny':
      return `${capital(denial.policy ?? 'a policy')} denies ${who} the action ${what}: allowing it elsewhere does not help. Have the denial taken out.`;
    case 'guard-rail':
      return `The ${denial.policy ?? 'policy'} that limits ${who} must allow the action ${what} as well; a policy of its own is not enough.${whoseGuardRail(denial)}`;
    case 'model-access':
      return `The AWS account has no access to this model. Request it in the Bedrock console (model access), or accept its offer in AWS Marketplace.`;
    case 'unsaid':
      return `AWS does not say what is missing. The call needs ${what}, and for an inference profile the same on every model behind it. ${WHOLE_POLICY}`;
  }
}

/** The sessions of a role that we assume have a policy of ours; keys that came as a session may have one of their owner's. */
function whoseGuardRail({ policy }: AccessDenial): string {
  return policy === 'session policy'
    ? " For a role that this service assumes, that policy is the service's: tell the operator."
    : '';
}

const WHOLE_POLICY = 'POST …/permissions/test returns the whole policy for a model.';

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
