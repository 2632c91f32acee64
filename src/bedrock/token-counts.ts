import type { TokenCounts } from '../domain/usage.ts';

/** JSON from AWS, of which nothing is taken on trust. */
export type Json = Readonly<Record<string, unknown>>;

export function asObject(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
}

/** Undefined instead of an error for what is no JSON object. */
export function parseObject(bytes: Buffer | string): Json | undefined {
  try {
    return asObject(JSON.parse(typeof bytes === 'string' ? bytes : bytes.toString('utf8')));
  } catch {
    return undefined;
  }
}

/** A count of tokens. AWS writes floats such as 28.0 where a guardrail is on; what is no count is left out. */
export function count(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d{1,15}(\.\d+)?$/.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) && number >= 0
    ? Math.round(number)
    : undefined;
}

/** The first of several names under which AWS gives the same number. */
export function firstCount(from: Json, ...names: string[]): number | undefined {
  for (const name of names) {
    const found = count(from[name]);
    if (found !== undefined) return found;
  }
  return undefined;
}

export function tokens(parts: Partial<Record<keyof TokenCounts, number | undefined>>): TokenCounts {
  return {
    input: parts.input ?? 0,
    output: parts.output ?? 0,
    cacheRead: parts.cacheRead ?? 0,
    cacheWrite5m: parts.cacheWrite5m ?? 0,
    cacheWrite1h: parts.cacheWrite1h ?? 0,
  };
}

/** Splits what was written to the cache by lifetime. What no lifetime is named for is five minutes, AWS's default. */
export function splitCacheWrites(
  total: number | undefined,
  oneHour: number | undefined,
): Pick<TokenCounts, 'cacheWrite5m' | 'cacheWrite1h'> {
  const cacheWrite1h = oneHour ?? 0;
  return { cacheWrite5m: Math.max(0, (total ?? 0) - cacheWrite1h), cacheWrite1h };
}

/** `usage` of Converse and ConverseStream: inputTokens excludes cached ones; cacheDetails splits the writes. */
export function converseTokens(usage: Json): TokenCounts {
  const details = Array.isArray(usage['cacheDetails']) ? usage['cacheDetails'].map(asObject) : [];
  const oneHour = details
    .filter((detail) => detail?.['ttl'] === '1h')
    .reduce((sum, detail) => sum + (count(detail?.['inputTokens']) ?? 0), 0);
  return tokens({
    input: firstCount(usage, 'inputTokens'),
    output: firstCount(usage, 'outputTokens'),
    cacheRead: firstCount(usage, 'cacheReadInputTokens', 'cacheReadInputTokenCount'),
    ...splitCacheWrites(firstCount(usage, 'cacheWriteInputTokens', 'cacheWriteInputTokenCount'), oneHour),
  });
}

/** How much of an Anthropic model's cache writes live for an hour; undefined where the body does not say. */
export function anthropicOneHourWrites(usage: Json | undefined): number | undefined {
  return count(asObject(usage?.['cache_creation'])?.['ephemeral_1h_input_tokens']);
}
