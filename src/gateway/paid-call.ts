import type { Actor } from '../domain/audit.ts';
import type { CredentialChoice } from '../domain/credential-choice.ts';
import type { CredentialSource } from '../domain/credential.ts';
import type { CallId } from '../domain/ids.ts';
import type { Merchant } from '../domain/merchant.ts';
import type { MerchantPrincipal } from '../domain/principal.ts';
import type { Operation } from '../domain/usage.ts';
import type { LimitUse } from '../ledger/call-intent.ts';
import type { AwsRefusal } from '../bedrock/aws-errors.ts';
import type { Frame } from '../bedrock/event-stream.ts';

/** One paid call as a caller asks for it. */
export interface PaidCall {
  actor: Actor;
  principal: MerchantPrincipal;
  merchant: Merchant;
  choice: CredentialChoice;
  operation: Operation;
  /** As it came, percent-decoded once; not yet checked. */
  modelId: string;
  body: Uint8Array;
  /** The request's headers as they came; only those on the allow-list go on. */
  headers: Readonly<Record<string, string | string[] | undefined>>;
  /** `x-bedrock-region`: another region than the credential's own, where that is possible. */
  requestedRegion?: string;
  /** Read anew what is otherwise remembered of the merchant's credential. */
  anew?: boolean;
  /** This version of its stored credential and no other: the second try of a call whose key AWS did not know. */
  pinned?: { version: number; region: string; accountId: string | undefined };
  /** Fires when the caller is gone. The call is then read on for its usage for a bounded time, and cut. */
  callerGone: AbortSignal;
}

/** Whose keys were used: every answer says so. */
export interface CallIdentity {
  callId: CallId;
  source: CredentialSource;
  region: string;
  accountId: string | undefined;
  /** The output the call was held to, where that is less than its body asked. Tokens. */
  maxTokens: number | undefined;
  /** The merchant's hard limits after this call was admitted. */
  limits: readonly LimitUse[];
  /** The answer was kept from the first call with the same Idempotency-Key; nothing was called now. */
  replayed?: true;
}

/** AWS's answer. `headers` are the allowed ones, `awsError` is set when AWS refused. */
export interface PaidReply {
  identity: CallIdentity;
  status: number;
  headers: Readonly<Record<string, string>>;
  awsError?: AwsRefusal;
  /** Whole, or frame by frame for streams. A stream that fails ends with an exception frame, never silently. */
  body: Buffer | AsyncIterable<Frame>;
}
