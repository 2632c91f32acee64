import type { Latency } from './usage.ts';

/**
 * The lowest and the highest latency, in whole milliseconds, that bucket `index` (from 1) of the histogram takes: latency_bucket() in
 * prisma/migrations puts `ms` where 2^((index - 1) / 2) < max(ms, 1) + 0.5 <= 2^(index / 2). The last one takes all that is slower, too.
 */
export function bucketBounds(index: number): [lowest: number, highest: number] {
  return [Math.floor(2 ** ((index - 1) / 2) - 0.5) + 1, Math.floor(2 ** (index / 2) - 0.5)];
}

/**
 * Mean and percentiles (nearest rank) of a histogram. A percentile is interpolated within its bucket, so it and the true one lie in the same half
 * octave: each is less than √2 times the other. Under 1 ms counts as 1 ms; above 1,048,576 ms (17 minutes) as that.
 * @param counts calls by bucket, the first one at index 0.
 * @param totalMs the sum of all their latencies.
 */
export function latencyOf(counts: readonly number[], totalMs: number): Latency | null {
  const calls = counts.reduce((sum, count) => sum + count, 0);
  if (calls === 0) return null;
  return {
    mean: rounded(totalMs / calls),
    p50: percentile(counts, Math.ceil((calls * 50) / 100)),
    p90: percentile(counts, Math.ceil((calls * 90) / 100)),
    p99: percentile(counts, Math.ceil((calls * 99) / 100)),
  };
}

/** The latency of the call of this rank, counted from 1. */
function percentile(counts: readonly number[], rank: number): number {
  let before = 0;
  for (const [at, count] of counts.entries()) {
    if (rank <= before + count) {
      const [lowest, highest] = bucketBounds(at + 1);
      return rounded(lowest + ((highest - lowest) * (rank - before - 0.5)) / count);
    }
    before += count;
  }
  throw new RangeError('no call has this rank');
}

function rounded(ms: number): number {
  return Math.round(ms * 10) / 10;
}
