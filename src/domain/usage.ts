/** The paid operations of Bedrock runtime, as they are named in the ledger. */
export const OPERATIONS = [
  'invoke',
  'invoke-with-response-stream',
  'converse',
  'converse-stream',
  'count-tokens',
] as const;
export type Operation = (typeof OPERATIONS)[number];

export const STREAM_OPERATIONS: ReadonlySet<Operation> = new Set([
  'invoke-with-response-stream',
  'converse-stream',
]);

/**
 * Tokens of one call, in four buckets that never overlap (`input` excludes cached tokens, as AWS counts them).
 * `cacheWrite5m` also holds writes whose lifetime AWS did not name: five minutes is its default.
 */
export interface TokenCounts {
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite5m: number;
  cacheWrite1h: number;
}

export const NO_TOKENS: TokenCounts = { input: 0, output: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 };

/**
 * Where the numbers of a row come from: `headers`, `metrics`, `body` as AWS reported them; `drained` when the client had left and
 * we read on to AWS's report; `none` when the model reports no tokens (rerank) or nothing ran. Of calls that were unknown: `log` from the
 * merchant's invocation log, `operator` by hand, `estimated` when AWS's report was lost.
 */
export type Provenance =
  'headers' | 'metrics' | 'body' | 'drained' | 'none' | 'log' | 'operator' | 'estimated';

export interface ReportedUsage {
  tokens: TokenCounts;
  /** Images that were made. */
  images?: number;
  provenance: Provenance;
}

/** What was seen of a call before it was lost sight of. */
export interface SeenUsage {
  /** All tokens of the input, where AWS told them. */
  inputTokens?: number;
  /** What AWS told, or what came at most: each token is at least a byte of it. */
  outputTokens: number;
  /** AWS told the output. Else more may be billed than came: hidden reasoning never does. */
  told: boolean;
}

/** How a call ended. Exactly one of these resolves each ledger row. */
export type CallOutcome =
  | { state: 'settled'; usage: ReportedUsage; upstream: UpstreamFacts }
  /** AWS provably did not run it: refused before execution, or never reached. */
  | { state: 'void'; reason: string; upstream: UpstreamFacts }
  /** We cannot know: cut off, timed out, or 5xx after the request was sent. Never refunded by time alone. */
  | { state: 'unknown'; reason: string; upstream: UpstreamFacts; seen?: SeenUsage | undefined };

/** What was observed of the upstream call. Times in milliseconds from sending. */
export interface UpstreamFacts {
  status?: number;
  errorType?: string;
  awsRequestId?: string;
  latencyMs?: number;
  timeToFirstByteMs?: number;
}
