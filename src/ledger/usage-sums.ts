import { latencyOf } from './latency.ts';
import type { UsageSums } from './usage.ts';

/** The sums of a row of usage_days, or of several. */
export const SUM_COLUMNS = [
  'settled',
  'voided',
  'unknown',
  'estimated',
  'unpriced',
  'throttled',
  'failed',
  'input_tokens',
  'output_tokens',
  'cache_read_tokens',
  'cache_write_5m_tokens',
  'cache_write_1h_tokens',
  'images',
  'cost_nano',
  'correction_nano',
  'latency_ms',
] as const;

export type SumRow = Record<(typeof SUM_COLUMNS)[number], bigint> & {
  /** Calls by latency: 40 buckets. */
  latencies: readonly bigint[];
};

export function toSums(row: SumRow): UsageSums {
  const [input, output] = [Number(row.input_tokens), Number(row.output_tokens)];
  const cacheRead = Number(row.cache_read_tokens);
  const [cacheWrite5m, cacheWrite1h] = [Number(row.cache_write_5m_tokens), Number(row.cache_write_1h_tokens)];
  return {
    calls: {
      settled: Number(row.settled),
      void: Number(row.voided),
      unknown: Number(row.unknown),
      estimated: Number(row.estimated),
      unpriced: Number(row.unpriced),
      throttled: Number(row.throttled),
      failed: Number(row.failed),
    },
    tokens: {
      input,
      output,
      cacheRead,
      cacheWrite5m,
      cacheWrite1h,
      total: input + output + cacheRead + cacheWrite5m + cacheWrite1h,
    },
    images: Number(row.images),
    costNanoUsd: Number(row.cost_nano),
    correctionNanoUsd: Number(row.correction_nano),
    totalNanoUsd: Number(row.cost_nano + row.correction_nano),
    latencyMs: latencyOf(row.latencies.map(Number), Number(row.latency_ms)),
  };
}
