import type { Frame } from './event-stream.ts';
import { errorOf } from './sse.ts';
import { asObject, converseTokens, parseObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** What our simple chat route takes; checked before. */
export interface ChatRequest {
  prompt?: string | undefined;
  messages?: readonly { role: 'user' | 'assistant'; content: string }[] | undefined;
  system?: string | undefined;
  temperature?: number | undefined;
  topP?: number | undefined;
  maxTokens?: number | undefined;
  stopSequences?: readonly string[] | undefined;
}

export interface ChatUsage {
  inputTokens: number;
  outputTokens: number;
  cacheReadTokens: number;
  cacheWriteTokens: number;
  totalTokens: number;
}

export interface ChatReply {
  text: string;
  stopReason: string | null;
  /** As AWS reported it; null when it did not. */
  usage: ChatUsage | null;
}

/** The body of Converse for a chat. */
export function converseBodyOf(chat: ChatRequest): object {
  const messages = chat.messages ?? [{ role: 'user', content: chat.prompt ?? '' }];
  const inferenceConfig = withoutUndefined({
    maxTokens: chat.maxTokens,
    temperature: chat.temperature,
    topP: chat.topP,
    stopSequences: chat.stopSequences,
  });
  return {
    messages: messages.map(({ role, content }) => ({ role, content: [{ text: content }] })),
    ...(chat.system !== undefined && { system: [{ text: chat.system }] }),
    ...(Object.keys(inferenceConfig).length > 0 && { inferenceConfig }),
  };
}

/** Converse's answer as text and usage. Parts that are no text (reasoning, tool use) are left to the AWS-shaped route. */
export function chatReplyOf(body: Buffer): ChatReply {
  const json = parseObject(body) ?? {};
  const content = asObject(asObject(json['output'])?.['message'])?.['content'];
  const parts = Array.isArray(content) ? content.map((part) => asObject(part)?.['text']) : [];
  return {
    text: parts.filter((part) => typeof part === 'string').join(''),
    stopReason: typeof json['stopReason'] === 'string' ? json['stopReason'] : null,
    usage: usageOf(json),
  };
}

/** One frame of ConverseStream as an event of our chat stream; undefined for frames that say nothing to a chat. */
export function chatEventOfFrame(
  frame: Frame,
): { event: 'delta' | 'stop' | 'usage' | 'error'; data: object } | undefined {
  if (frame.messageType !== 'event') return { event: 'error', data: errorOf(frame) };
  const json = parseObject(frame.payload) ?? {};
  switch (frame.eventType) {
    case 'contentBlockDelta': {
      const text = asObject(json['delta'])?.['text'];
      return typeof text === 'string' ? { event: 'delta', data: { text } } : undefined;
    }
    case 'messageStop':
      return { event: 'stop', data: { stopReason: json['stopReason'] ?? null } };
    case 'metadata':
      return { event: 'usage', data: { usage: usageOf(json) } };
    default:
      return undefined;
  }
}

function usageOf(json: Json): ChatUsage | null {
  const usage = asObject(json['usage']);
  if (usage === undefined) return null;
  const { input, output, cacheRead, cacheWrite5m, cacheWrite1h } = converseTokens(usage);
  const cacheWriteTokens = cacheWrite5m + cacheWrite1h;
  return {
    inputTokens: input,
    outputTokens: output,
    cacheReadTokens: cacheRead,
    cacheWriteTokens,
    totalTokens: input + output + cacheRead + cacheWriteTokens,
  };
}

function withoutUndefined(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
