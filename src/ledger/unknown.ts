import type { InvocationLogs } from '../domain/invocation-logs.ts';
import type { CallId, MerchantId } from '../domain/ids.ts';
import { NO_TOKENS } from '../domain/usage.ts';
import type { ReportedUsage, SeenUsage, TokenCounts } from '../domain/usage.ts';

/** A call whose end nobody saw, claimed to be looked at. Times in milliseconds since the epoch, by the database's clock. */
export interface UnknownCall {
  merchantId: MerchantId;
  id: CallId;
  region: string;
  accountId: string | undefined;
  awsRequestId: string | undefined;
  createdAtMs: number;
  deadlineMs: number;
  /** The most it can have used. */
  hold: { inputTokens: number; outputTokens: number; images: number };
  seen: SeenUsage | undefined;
  /** Where the merchant's logs are. */
  logs: InvocationLogs | undefined;
  /** What the merchant's plan says, and whether its time has come. */
  whenUnknown: 'most' | 'seen' | 'keep';
  overdue: boolean;
}

/** Unknown calls of one merchant. Money in nano-USD; `oldest` is when the first of them became unknown. */
export interface UnknownCalls {
  merchantId: MerchantId;
  calls: number;
  oldest: string;
  holdTokens: number;
  holdNanoUsd: number;
}

/** What an operator says of an unknown call. */
export type Decision =
  | { state: 'void'; reason: string }
  | { state: 'settled'; reason: string; tokens: TokenCounts; images: number };

/**
 * What an unknown call counts as when nothing will tell: never more than was held for it. `most` takes the output that was held, unless AWS
 * told it; `seen` takes what came, where anything did. All of the input counts as plain input.
 */
export function estimateOf({ hold, seen }: UnknownCall, how: 'most' | 'seen'): ReportedUsage {
  const output = seen !== undefined && (seen.told || how === 'seen') ? seen.outputTokens : hold.outputTokens;
  return {
    provenance: 'estimated',
    images: hold.images,
    tokens: {
      ...NO_TOKENS,
      input: Math.min(hold.inputTokens, seen?.inputTokens ?? hold.inputTokens),
      output: Math.min(hold.outputTokens, output),
    },
  };
}
