import type { Run } from './run.ts';
import type { Usage } from '../wire/answer.ts';

/** AWS's total is the sum of all buckets: input excludes the cache. */
export function totalTokens(usage: Usage): number {
  return usage.input + usage.output + cacheTokens(usage);
}

function cacheTokens(usage: Usage): number {
  return usage.cacheRead + cacheWrites(usage);
}

function cacheWrites(usage: Usage): number {
  return usage.cacheWrite5m + usage.cacheWrite1h;
}

/** `usage` of Converse and ConverseStream; cache members (each under two names) only from models that can cache. */
export function converseUsage(usage: Usage, caches: boolean): object {
  const tokens = { inputTokens: usage.input, outputTokens: usage.output, totalTokens: totalTokens(usage) };
  if (!caches) return tokens;
  const details = [
    { ttl: '5m', inputTokens: usage.cacheWrite5m },
    { ttl: '1h', inputTokens: usage.cacheWrite1h },
  ].filter(({ inputTokens }) => inputTokens > 0);
  return {
    cacheReadInputTokenCount: usage.cacheRead,
    cacheReadInputTokens: usage.cacheRead,
    cacheWriteInputTokenCount: cacheWrites(usage),
    cacheWriteInputTokens: cacheWrites(usage),
    ...tokens,
    ...(details.length > 0 && { cacheDetails: details }),
  };
}

/** Headers of InvokeModel. */
export function usageHeaders(run: Run, caches: boolean): Record<string, string> {
  const { usage } = run;
  return {
    'x-amzn-bedrock-invocation-latency': String(run.latencyMs),
    'x-amzn-bedrock-output-token-count': String(usage.output),
    'x-amzn-bedrock-input-token-count': String(usage.input),
    ...(caches && {
      'x-amzn-bedrock-cache-read-input-token-count': String(usage.cacheRead),
      'x-amzn-bedrock-cache-write-input-token-count': String(cacheWrites(usage)),
    }),
  };
}

/** Member that AWS adds to the last chunk of InvokeModelWithResponseStream. */
export function invocationMetrics(run: Run, caches: boolean): object {
  const { usage } = run;
  return {
    'amazon-bedrock-invocationMetrics': {
      inputTokenCount: usage.input,
      outputTokenCount: usage.output,
      invocationLatency: run.latencyMs,
      firstByteLatency: run.firstByteMs,
      ...(caches && {
        cacheReadInputTokenCount: usage.cacheRead,
        cacheWriteInputTokenCount: cacheWrites(usage),
      }),
    },
  };
}
