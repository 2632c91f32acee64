import type { CredentialSource } from '../domain/credential.ts';
import type { ApiKeyId, CredentialId } from '../domain/ids.ts';
import type { Operation } from '../domain/usage.ts';

/** What is written before a call: who, with which keys, what. */
export interface CallIntent {
  operation: Operation;
  modelId: string;
  region: string;
  accountId?: string;
  source: CredentialSource;
  credentialId?: CredentialId;
  credentialVersion?: number;
  subject: string;
  apiKeyId?: ApiKeyId;
  requestId: string;
  /** `amz-sdk-invocation-id`: the same over all attempts an SDK makes of one call. */
  clientInvocationId?: string;
  /** After this the call counts as unknown if nothing resolved it. */
  deadlineSeconds: number;
}

/** `admitted`, or which of the things the call depends on is not live or not allowed. */
export type Verdict = 'admitted' | 'merchant' | 'api_key' | 'credential' | 'source';
