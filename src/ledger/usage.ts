import type { MerchantId } from '../domain/ids.ts';

export const TIMEFRAMES = ['day', 'week', 'month', 'year'] as const;
export type Timeframe = (typeof TIMEFRAMES)[number];

/** UTC dates, `from` <= day < `to`, in place of a running period. */
export interface DateSpan {
  from: string;
  to: string;
}
export type Span = Timeframe | DateSpan;
/** A span of dates may be this long. */
export const SPAN_DAYS_MAX = 400;

export const USAGE_GROUPS = [
  'model',
  'credential',
  'instance',
  'apiKey',
  'endUser',
  'source',
  'region',
  'day',
] as const;
export type UsageGroup = (typeof USAGE_GROUPS)[number];
/** A report of more groups is refused: ask for fewer days or groups. */
export const REPORT_GROUPS_MAX = 10_000;

/** Groups of operators' sums: always by merchant, and by these. */
export const OPS_USAGE_GROUPS = ['model', 'day'] as const;
export type OpsUsageGroup = (typeof OPS_USAGE_GROUPS)[number];

/** Calls by outcome and tokens by kind; token kinds never overlap. Money in nano-USD, exact to 2^53 (nine million USD). */
export interface UsageSums {
  /**
   * Each resolved call is one of `settled`, `void`, `unknown`. Of the settled ones some are `estimated` (AWS's report was lost) or `unpriced`
   * (no price, so no cost); of the others, `throttled` are those that AWS answered with 429 and `failed` the rest.
   */
  calls: {
    settled: number;
    void: number;
    unknown: number;
    estimated: number;
    unpriced: number;
    throttled: number;
    failed: number;
  };
  tokens: {
    input: number;
    output: number;
    cacheRead: number;
    cacheWrite5m: number;
    cacheWrite1h: number;
    total: number;
  };
  images: number;
  /** As charged when each call was settled. */
  costNanoUsd: number;
  /** What re-rating found since. */
  correctionNanoUsd: number;
  totalNanoUsd: number;
  /** Of settled calls; null when there are none. */
  latencyMs: Latency | null;
}

/** Milliseconds. The mean is exact, percentiles are off by less than half an octave (see latency.ts). */
export interface Latency {
  mean: number;
  p50: number;
  p90: number;
  p99: number;
}

/** What the running period will come to if it goes on as it began: used so far, divided by the part that has passed. */
export interface Forecast {
  /** The end of the period, exclusive. */
  until: string;
  /** The part of the period that has passed, 0.1 to 1. */
  elapsed: number;
  tokens: number;
  costNanoUsd: number;
}

export interface UsageReport extends UsageSums {
  /** Null where dates were asked for. */
  timeframe: Timeframe | null;
  /** First day and the day after the last one, in UTC by the database's clock: `from` <= day < `to`. */
  from: string;
  to: string;
  /** Null for what is over, and before a tenth of the period has passed. */
  forecast: Forecast | null;
  groups: (UsageSums & { key: Partial<Record<UsageGroup, string | null>> })[];
}

/** Which records. A call is of the day on which it started, as in reports. */
export interface RecordFilter {
  state?: 'held' | 'settled' | 'void' | 'unknown' | undefined;
  model?: string | undefined;
  apiKey?: string | undefined;
  endUser?: string | undefined;
  from?: string | undefined;
  to?: string | undefined;
}

export interface UsageRecord {
  id: string;
  state: string;
  operation: string;
  modelId: string;
  baseModelId: string | null;
  region: string;
  accountId: string | null;
  credentialSource: string;
  credentialId: string | null;
  credentialVersion: number | null;
  subject: string;
  apiKeyId: string | null;
  endUser: string | null;
  requestId: string;
  createdAt: string;
  resolvedAt: string | null;
  reason: string | null;
  provenance: string | null;
  tokens: { input: number; output: number; cacheRead: number; cacheWrite5m: number; cacheWrite1h: number };
  images: number;
  tier: string | null;
  /** The price of admission; null where there was none. */
  priceId: string | null;
  maxTokens: number | null;
  holdTokens: number;
  holdNanoUsd: number | null;
  /** Null while not settled, and when unpriced. */
  costNanoUsd: number | null;
  awsStatus: number | null;
  awsErrorType: string | null;
  awsRequestId: string | null;
  latencyMs: number | null;
  timeToFirstByteMs: number | null;
}

/** What re-rating found of one call. */
export interface Correction {
  callId: string;
  priceId: string;
  /** Whole nano-USD as text; below zero where the call had cost too much. */
  deltaNanoUsd: string;
  reason: string;
  createdAt: string;
}

/** A part of an export: records, oldest first, and what corrects them. */
export interface ExportPage {
  records: UsageRecord[];
  corrections: Correction[];
}

export const EXPORT_FORMATS = ['csv', 'ndjson', 'focus'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

export interface MerchantUsage extends UsageSums {
  merchantId: MerchantId;
  key: Partial<Record<OpsUsageGroup, string>>;
}

export interface Page<T> {
  items: T[];
  /** Give it back as `cursor` for the next page; absent on the last one. */
  nextCursor?: string;
}
