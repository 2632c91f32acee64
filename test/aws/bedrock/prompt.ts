import { z } from 'zod';
import { validationError } from '../wire/errors.ts';

type CacheTtl = '5m' | '1h';

/** A piece of a prompt in the order in which the model reads it; a cache point ends a prefix that may be kept. */
export type PromptItem = { text: string } | { cachePoint: CacheTtl };

/** What every family's request comes down to. */
export interface Prompt {
  items: readonly PromptItem[];
  /** Text of the last user message: what the answer is computed from. */
  said: string;
  /** Absent: no limit. */
  maxTokens?: number | undefined;
}

/** THE RULE of token counts: one token per run of non-blank characters, in and out; a block that is not text counts as one. */
export function countTokens(text: string): number {
  return words(text).length;
}

export function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

/** Stands for an image, a document, a tool or a tool result. */
const NOT_TEXT: PromptItem = { text: '[block]' };

const cachePoint = z.looseObject({ ttl: z.enum(['5m', '1h']).optional() });
const block = z.looseObject({ text: z.string().optional(), cachePoint: cachePoint.optional() });
const message = z.looseObject({ role: z.enum(['user', 'assistant']), content: z.array(block).min(1) });

/** Members of Converse that decide the answer. Nova's own InvokeModel body has the same shape. */
export const converseShape = z.looseObject({
  messages: z.array(message).min(1),
  system: z.array(block).optional(),
  toolConfig: z.looseObject({ tools: z.array(block).optional() }).optional(),
  inferenceConfig: z
    .looseObject({ maxTokens: z.int().min(1).optional(), max_new_tokens: z.int().min(1).optional() })
    .optional(),
  requestMetadata: z.record(z.string(), z.string()).optional(),
  serviceTier: z.looseObject({ type: z.string() }).optional(),
});

/** The order is AWS's for caching: tools, then system, then messages. */
export function promptOfConverse(body: z.infer<typeof converseShape>): Prompt {
  const last = body.messages.findLast((m) => m.role === 'user');
  if (!last || body.messages[0]?.role !== 'user') {
    throw validationError(
      'A conversation must start with a user message. Try again with a conversation that starts with a user message.',
    );
  }
  const blocks = [
    ...(body.toolConfig?.tools ?? []),
    ...(body.system ?? []),
    ...body.messages.flatMap((m) => m.content),
  ];
  return {
    items: blocks.map(itemOfBlock),
    said: last.content.map((b) => b.text ?? '').join('\n'),
    maxTokens: body.inferenceConfig?.maxTokens ?? body.inferenceConfig?.max_new_tokens,
  };
}

function itemOfBlock(b: z.infer<typeof block>): PromptItem {
  if (b.cachePoint) return { cachePoint: b.cachePoint.ttl ?? '5m' };
  return b.text === undefined ? NOT_TEXT : { text: b.text };
}

const anthropicBlock = z.looseObject({
  type: z.string(),
  text: z.string().optional(),
  cache_control: z.looseObject({ ttl: z.enum(['5m', '1h']).optional() }).nullish(),
});
const anthropicText = z.union([z.string(), z.array(anthropicBlock)]);

/** Anthropic Messages as Bedrock takes it: `anthropic_version` is required, of whatever date. */
export const anthropicShape = z.looseObject({
  anthropic_version: z.string(),
  max_tokens: z.int().min(1),
  messages: z.array(z.looseObject({ role: z.enum(['user', 'assistant']), content: anthropicText })).min(1),
  system: anthropicText.optional(),
  tools: z.array(z.looseObject({})).optional(),
});

export function promptOfAnthropic(body: z.infer<typeof anthropicShape>): Prompt {
  const texts = [body.system ?? '', ...body.messages.map((m) => m.content)];
  const tools = (body.tools ?? []).map(() => NOT_TEXT);
  return {
    items: [...tools, ...texts.flatMap(itemsOfAnthropic)],
    said: plainText(body.messages.findLast((m) => m.role === 'user')?.content ?? ''),
    maxTokens: body.max_tokens,
  };
}

function itemsOfAnthropic(content: z.infer<typeof anthropicText>): PromptItem[] {
  if (typeof content === 'string') return [{ text: content }];
  return content.flatMap((b) => {
    const item = b.text === undefined ? NOT_TEXT : { text: b.text };
    return b.cache_control ? [item, { cachePoint: b.cache_control.ttl ?? '5m' }] : [item];
  });
}

function plainText(content: z.infer<typeof anthropicText>): string {
  return typeof content === 'string' ? content : content.map((b) => b.text ?? '').join('\n');
}
