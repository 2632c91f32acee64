import type { CredentialSource } from '../domain/credential.ts';
import type { ApiKeyId, CallId, CredentialId } from '../domain/ids.ts';
import type { Operation } from '../domain/usage.ts';

/** What is written before a call: who, with which keys, what, and the most it can cost. */
export interface CallIntent {
  operation: Operation;
  modelId: string;
  /** The foundation model behind `modelId`, where it is known. */
  baseModelId?: string;
  region: string;
  accountId?: string;
  source: CredentialSource;
  credentialId?: CredentialId;
  credentialVersion?: number;
  subject: string;
  apiKeyId?: ApiKeyId;
  /** `x-bedrock-end-user`: whom the merchant makes the call for. */
  endUser?: string;
  requestId: string;
  /** `amz-sdk-invocation-id`: the same over all attempts an SDK makes of one call. */
  clientInvocationId?: string;
  /** After this the call counts as unknown if nothing resolved it. */
  deadlineSeconds: number;
  /** The revision of the merchant that the request was checked with. */
  merchantRevision: number;
  bound: CallBound;
  idempotency?: { keyHash: string; bodyHash: string };
}

/** The most a call can use and cost. Tokens; money in nano-USD. */
export interface CallBound {
  inputTokens: number;
  /** What the body allows; undefined where it does not say. */
  outputTokens: number | undefined;
  /** What the model can produce at most, where the body does not say. */
  outputTokensMost: number;
  /** Images that it makes; none where it is not said. */
  images?: number;
  /** Whether the outgoing body can be told a smaller output. */
  clampable: boolean;
  tier: string;
  /** Undefined: the model has no price (unpriced, which is a state and not 0). */
  price?: { id: bigint; inputNanoUsd: bigint; outputNanoUsdPerMillion: bigint };
}

/** A limit as a refusal or a header tells it. Money in nano-USD. */
export interface LimitUse {
  name: string;
  max: number;
  used: number;
  /** Absent for limits that have no period. */
  resetSeconds?: number | null;
}

export interface LimitRefusal extends LimitUse {
  scope: 'merchant' | 'api-key' | 'end-user';
  wanted: number;
  resetsAt: string | null;
}

/** What the admission statement answers for one call. */
export type HoldAnswer =
  | { verdict: 'admitted'; id: CallId; maxTokens: number | null; limits: readonly LimitUse[] }
  | { verdict: 'limit'; limit: LimitRefusal }
  | { verdict: 'replay'; id: CallId }
  | { verdict: StaticVerdict };

/** Which of the things that a call depends on is not live or not allowed. `stale`: the merchant changed since the request was checked. */
export type StaticVerdict =
  | 'merchant'
  | 'api_key'
  | 'stale'
  | 'source'
  | 'credential'
  | 'region'
  | 'model'
  | 'max_tokens'
  | 'unpriced'
  | 'key_reused';
