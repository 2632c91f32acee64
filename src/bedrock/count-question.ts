import type { Operation } from '../domain/usage.ts';
import { parseBody, rewrite } from './model-request-json.ts';
import { count, parseObject } from './token-counts.ts';

/** What CountTokens takes of a Converse body. Source: ConverseTokensRequest. */
const COUNTED = new Set(['messages', 'system', 'toolConfig', 'additionalModelRequestFields']);
/** Members of Converse that no model reads: left out, the count is the same. Others may bring text along (outputConfig: a schema). */
const NOT_READ = new Set([
  ...['inferenceConfig', 'guardrailConfig', 'requestMetadata', 'additionalModelResponseFieldPaths'],
  ...['performanceConfig', 'serviceTier'],
]);
/** CountTokens takes foundation models of Anthropic alone, by their bare ids: no inference profiles, no Nova. */
const COUNTED_MODEL = /^anthropic\.[a-z0-9.:-]+$/;

/**
 * The body of CountTokens that asks about a call. Undefined where AWS would not say, or would count less than the call reads.
 * @param modelId of the foundation model
 * @param body as it is sent: no member twice
 */
export function countQuestion(operation: Operation, modelId: string, body: Uint8Array): Buffer | undefined {
  if (!COUNTED_MODEL.test(modelId)) return undefined;
  switch (operation) {
    case 'converse':
    case 'converse-stream':
      return converseQuestion(body);
    case 'invoke':
    case 'invoke-with-response-stream':
      return Buffer.from(
        JSON.stringify({ input: { invokeModel: { body: Buffer.from(body).toString('base64') } } }),
      );
    default:
      return undefined;
  }
}

function converseQuestion(body: Uint8Array): Buffer | undefined {
  const others = Object.keys(parseBody(body).json).filter((name) => !COUNTED.has(name));
  if (!others.every((name) => NOT_READ.has(name))) return undefined;
  const counted = rewrite(
    body,
    others.map((name) => ({ path: [name], value: undefined })),
  );
  return Buffer.concat([Buffer.from('{"input":{"converse":'), counted, Buffer.from('}}')]);
}

/** Input tokens, from the answer of CountTokens; undefined when it does not tell any. */
export function countOfAnswer(answer: Buffer): number | undefined {
  const tokens = count(parseObject(answer)?.['inputTokens']);
  return tokens === 0 ? undefined : tokens;
}
