import type { MerchantId } from '../domain/ids.ts';

export const TIMEFRAMES = ['day', 'week', 'month', 'year'] as const;
export type Timeframe = (typeof TIMEFRAMES)[number];

export const USAGE_GROUPS = ['model', 'credential', 'source', 'apiKey', 'day'] as const;
export type UsageGroup = (typeof USAGE_GROUPS)[number];

/** Calls by outcome and tokens by kind; token kinds never overlap. */
export interface UsageSums {
  calls: { settled: number; void: number; unknown: number };
  tokens: {
    input: number;
    output: number;
    cacheRead: number;
    cacheWrite5m: number;
    cacheWrite1h: number;
    total: number;
  };
}

export interface UsageReport extends UsageSums {
  timeframe: Timeframe;
  /** First day and the day after the last one, in UTC by the database's clock: `from` <= day < `to`. */
  from: string;
  to: string;
  groups: (UsageSums & { key: Partial<Record<UsageGroup, string | null>> })[];
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

export interface MerchantUsage extends UsageSums {
  merchantId: MerchantId;
}

export interface Page<T> {
  items: T[];
  /** Give it back as `cursor` for the next page; absent on the last one. */
  nextCursor?: string;
}
