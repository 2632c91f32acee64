import { NO_TOKENS } from '../domain/usage.ts';
import type { Operation, ReportedUsage, SeenUsage, TokenCounts } from '../domain/usage.ts';
import {
  anthropicOneHourWrites,
  asObject,
  converseTokens,
  count,
  firstCount,
  parseObject,
  splitCacheWrites,
  tokens,
} from './token-counts.ts';
import type { Json } from './token-counts.ts';

const HEADER = 'x-amzn-bedrock-';

/**
 * What AWS reports of a call that is not a stream: token headers first, then Converse's `usage`, then what the model's own family
 * writes into its body. `none` with zeros for operations that report nothing (rerank) or cost nothing (count-tokens).
 */
export function usageOfReply(
  operation: Operation,
  headers: Readonly<Record<string, string>>,
  body: Buffer,
): ReportedUsage {
  if (operation === 'count-tokens') return { tokens: NO_TOKENS, provenance: 'none' };
  // An embedding or an image is long and holds its counts in headers: it is parsed only for what headers do not tell.
  const fromHeaders = tokensOfHeaders(headers);
  if (fromHeaders !== undefined) {
    const writes =
      fromHeaders.cacheWrite5m === 0
        ? undefined
        : anthropicOneHourWrites(asObject(parseObject(body)?.['usage']));
    return {
      tokens: { ...fromHeaders, ...splitCacheWrites(fromHeaders.cacheWrite5m, writes) },
      provenance: 'headers',
    };
  }
  const json = parseObject(body);
  const fromBody = json === undefined ? undefined : tokensOfBody(operation, json);
  return fromBody === undefined
    ? { tokens: NO_TOKENS, provenance: 'none' }
    : { tokens: fromBody, provenance: 'body' };
}

/** InvokeModel's headers; the output one is absent for embeddings. */
function tokensOfHeaders(headers: Readonly<Record<string, string>>): TokenCounts | undefined {
  const input = count(headers[`${HEADER}input-token-count`]);
  const output = count(headers[`${HEADER}output-token-count`]);
  if (input === undefined && output === undefined) return undefined;
  return tokens({
    input,
    output,
    cacheRead: count(headers[`${HEADER}cache-read-input-token-count`]),
    cacheWrite5m: count(headers[`${HEADER}cache-write-input-token-count`]),
  });
}

/** Of an answer that was cut off: InvokeModel's headers tell all of it before its first byte. */
export function seenInHeaders(headers: Readonly<Record<string, string>>): SeenUsage | undefined {
  const told = tokensOfHeaders(headers);
  return told && { inputTokens: inputOf(told), outputTokens: told.output, told: true };
}

/** All tokens of an input, from the cache or not. */
export function inputOf({ input, cacheRead, cacheWrite5m, cacheWrite1h }: TokenCounts): number {
  return input + cacheRead + cacheWrite5m + cacheWrite1h;
}

function tokensOfBody(operation: Operation, json: Json): TokenCounts | undefined {
  const usage = asObject(json['usage']);
  if (operation === 'converse') return usage && converseTokens(usage);
  return usage === undefined ? tokensOfPlainBody(json) : tokensOfUsage(usage);
}

/** Anthropic (snake case, cache apart), Nova (camel case, `*Count` for the cache), OpenAI-like (prompt and completion). */
export function tokensOfUsage(usage: Json): TokenCounts | undefined {
  if ('input_tokens' in usage || 'output_tokens' in usage) {
    return tokens({
      input: count(usage['input_tokens']),
      output: count(usage['output_tokens']),
      cacheRead: count(usage['cache_read_input_tokens']),
      ...splitCacheWrites(count(usage['cache_creation_input_tokens']), anthropicOneHourWrites(usage)),
    });
  }
  if ('inputTokens' in usage || 'outputTokens' in usage) return converseTokens(usage);
  if ('prompt_tokens' in usage) {
    const cached = count(asObject(usage['prompt_tokens_details'])?.['cached_tokens']) ?? 0;
    const prompt = count(usage['prompt_tokens']) ?? 0;
    return tokens({
      input: Math.max(0, prompt - cached),
      output: count(usage['completion_tokens']),
      cacheRead: cached,
    });
  }
  return undefined;
}

/** Titan (input at the top, output per result) and Llama. */
function tokensOfPlainBody(json: Json): TokenCounts | undefined {
  if ('inputTextTokenCount' in json) {
    const results = Array.isArray(json['results']) ? json['results'] : [];
    const output = results.reduce<number>(
      (sum, result) => sum + (count(asObject(result)?.['tokenCount']) ?? 0),
      0,
    );
    return tokens({ input: count(json['inputTextTokenCount']), output });
  }
  if ('prompt_token_count' in json) {
    return tokens({
      input: firstCount(json, 'prompt_token_count'),
      output: firstCount(json, 'generation_token_count'),
    });
  }
  return undefined;
}
