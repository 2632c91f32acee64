import type { ModelRef } from '../bedrock/model-id.ts';
import type { Listings, Standing } from '../bedrock/model-standing.ts';
import type { PolicyDocument } from '../bedrock/policy-document.ts';
import type { PolicyUse } from '../bedrock/policy.ts';
import type { Check, Finding } from '../bedrock/verdicts.ts';
import type { CredentialSource, ResolvedCredential } from '../domain/credential.ts';
import type { PaidCall } from './paid-call.ts';

/** Probes that are made only on request: one looks like an attack, the other costs money. */
export const PROBES_ON_REQUEST = ['invalid-body', 'paid'] as const;
export type ProbeOnRequest = (typeof PROBES_ON_REQUEST)[number];

/** What a caller wants to know about a credential. */
export interface PermissionAsk extends Pick<
  PaidCall,
  'actor' | 'principal' | 'merchant' | 'choice' | 'requestedRegion' | 'callerGone'
> {
  /** Ids or ARNs as they came; not yet checked. */
  models: readonly string[];
  /** Empty: the credential's own. */
  regions: readonly string[];
  /** What the policy is for. */
  uses: readonly PolicyUse[];
  /** `paid` only with the caller's consent. */
  probes: readonly ProbeOnRequest[];
}

/** One model in one region. The verdict is about bedrock:InvokeModel. */
export interface Cell extends Finding {
  modelId: string;
  region: string;
  checks: readonly Check[];
}

export interface PermissionReport {
  source: CredentialSource;
  accountId: string | undefined;
  /** Whom AWS says the credential is; not told of the service's own. */
  principal: string | undefined;
  /** What was found of the credential and of each region, before any model was asked about. */
  checks: readonly (Check & { region: string })[];
  cells: readonly Cell[];
  /** What allows all that was asked; undefined for the service's own account. */
  policy: PolicyDocument | undefined;
  /** What the policy leaves out, and why. */
  notInPolicy: readonly { modelId: string; region: string; why: string }[];
  /** The time was up before every question was asked. */
  timedOut: boolean;
}

/** Everything that a cell is found out from. */
export interface CellAsk {
  ask: PermissionAsk;
  model: ModelRef;
  /** The credential, for the cell's region. */
  resolved: ResolvedCredential;
  listings: Listings;
  standing: Standing;
  /** Ends the whole test. */
  signal: AbortSignal;
  /** To be called before AWS is asked anything. @throws what `signal` ends with when the right to ask has ended, or nobody can say */
  mayAsk: () => Promise<void>;
}
