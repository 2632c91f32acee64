import { readDenial } from './access-denied.ts';
import type { AccessDenial } from './access-denied.ts';
import type { AwsRefusal } from './aws-errors.ts';
import { awsFailure } from './aws-failures.ts';

/** Every question by which a permission test finds something out, in the order in which they are asked. `identifier`: nothing was asked. */
export const PROBES = [
  'identifier',
  'GetCallerIdentity',
  'ListFoundationModels',
  'ListInferenceProfiles',
  'GetProvisionedModelThroughput',
  'GetFoundationModelAvailability',
  'CountTokens',
  'invalid-body',
  'paid',
] as const;
export type Probe = (typeof PROBES)[number];

/** What a question came to: an answer, or what stood in its way. */
export type Probed<T> = { answer: T } | { failure: ProbeFailure };

export interface ProbeFailure {
  kind: 'denied' | 'model-access' | 'throttled' | 'credential-broken' | 'not-found' | 'invalid' | 'failed';
  /** Safe to show to the owner of the account: AWS's own words. */
  why: string;
  denial?: AccessDenial;
}

/** A model as ListFoundationModels has it. */
export interface ListedModel {
  modelId: string;
  /** ON_DEMAND, PROVISIONED, INFERENCE_PROFILE */
  inferenceTypes: readonly string[];
}

/** A profile as ListInferenceProfiles has it. */
export interface ListedProfile {
  profileId: string;
  arn: string;
  kind: 'inference-profile' | 'application-inference-profile';
  modelArns: readonly string[];
}

/** Whether an account may use a model, in AWS's words. It says nothing of the principal. */
export interface ModelAvailability {
  agreement: string;
  authorization: string;
  entitlement: string;
  region: string;
}

const NO_ANSWER_OF_AWS: ProbeFailure = { kind: 'failed', why: 'AWS did not answer, or not in time.' };

/** What a refusal means for the question that met it. @param action that the question needs. */
export function failureOf(refusal: AwsRefusal, action: string): ProbeFailure {
  const { type, message, status } = refusal;
  const why = message === '' ? type : `${type}: ${message}`;
  if (refusal.credentialBroken) return { kind: 'credential-broken', why };
  if (type === 'AccessDeniedException') {
    const denial = readDenial(message, action);
    return { kind: denial.by === 'model-access' ? 'model-access' : 'denied', why, denial };
  }
  if (awsFailure(type)?.code === 'upstream.throttled' || status === 429) return { kind: 'throttled', why };
  if (type === 'ResourceNotFoundException') return { kind: 'not-found', why };
  return { kind: type === 'ValidationException' ? 'invalid' : 'failed', why };
}

/** For everything that is no answer of AWS. */
export function unanswered(why = NO_ANSWER_OF_AWS.why): { failure: ProbeFailure } {
  return { failure: { kind: 'failed', why } };
}
