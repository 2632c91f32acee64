import { NO_TOKENS } from '../domain/usage.ts';
import type { ReportedUsage, SeenUsage } from '../domain/usage.ts';
import type { Frame } from './event-stream.ts';
import { inputOf, tokensOfUsage } from './usage-of-reply.ts';
import {
  anthropicOneHourWrites,
  asObject,
  converseTokens,
  firstCount,
  parseObject,
  splitCacheWrites,
  tokens,
} from './token-counts.ts';
import type { Json } from './token-counts.ts';

export type StreamOperation = 'converse-stream' | 'invoke-with-response-stream';

/** Watches a stream go by and learns its usage from AWS's own terminal event. It changes nothing and keeps no text. */
export interface UsageTap {
  see(frame: Frame): void;
  /** True only when the terminal event was seen: a stream without it was cut, however cleanly it ended. */
  readonly complete: boolean;
  /** What AWS reported; undefined until it did. */
  usage(): ReportedUsage | undefined;
  /** What came of a stream that broke off; undefined when nothing did. */
  seen(): SeenUsage | undefined;
  /** An exception or error frame of AWS's own. */
  readonly exception: { type: string; message: string } | undefined;
}

export function createUsageTap(operation: StreamOperation): UsageTap {
  return operation === 'converse-stream' ? new ConverseTap() : new InvokeTap();
}

abstract class Tap implements UsageTap {
  exception: { type: string; message: string } | undefined;
  protected reported: ReportedUsage | undefined;
  abstract readonly complete: boolean;
  /** Bytes of output that came: never fewer than its tokens. */
  protected outputBytes = 0;
  protected inputTokens: number | undefined;

  seen(): SeenUsage | undefined {
    if (this.outputBytes === 0 && this.inputTokens === undefined) return undefined;
    return {
      outputTokens: this.reported?.tokens.output ?? this.outputBytes,
      told: this.reported !== undefined,
      ...(this.inputTokens !== undefined && { inputTokens: this.inputTokens }),
    };
  }

  usage(): ReportedUsage | undefined {
    return this.reported;
  }

  see(frame: Frame): void {
    if (frame.messageType === 'event') {
      this.seeEvent(frame);
      return;
    }
    const message = parseObject(frame.payload)?.['message'];
    this.exception = {
      type: frame.exceptionType ?? frame.errorCode ?? 'unknown',
      message: frame.errorMessage ?? (typeof message === 'string' ? message : ''),
    };
  }

  protected abstract seeEvent(frame: Frame): void;
}

/** ConverseStream: `messageStop`, then `metadata` with the usage. Only the latter is parsed. */
class ConverseTap extends Tap {
  #stopped = false;

  get complete(): boolean {
    return this.#stopped && this.reported !== undefined;
  }

  protected override seeEvent(frame: Frame): void {
    if (frame.eventType === 'messageStop') this.#stopped = true;
    if (CONTENT_EVENTS.has(frame.eventType ?? '')) this.outputBytes += contentBytes(frame.payload);
    if (frame.eventType !== 'metadata') return;
    const usage = asObject(parseObject(frame.payload)?.['usage']);
    if (usage === undefined) return;
    this.reported = { tokens: converseTokens(usage), provenance: 'metrics' };
    this.inputTokens = inputOf(this.reported.tokens);
  }
}

/** The events whose payload holds something that the model wrote. */
const CONTENT_EVENTS: ReadonlySet<string> = new Set(['contentBlockStart', 'contentBlockDelta']);
/** The shortest JSON around what a delta brings. Bytes. */
const DELTA_JSON_BYTES = '{"contentBlockIndex":0,"delta":{"text":""}}'.length;
const PADDING = ',"p":"';

/**
 * The most bytes of text that a payload can hold, without parsing it: all of it but the JSON around it and AWS's padding. Inside a text the mark of
 * the padding would be escaped.
 */
function contentBytes(payload: Buffer): number {
  const start = payload.indexOf(PADDING, 0, 'latin1');
  const end = start < 0 ? -1 : payload.indexOf('"', start + PADDING.length, 'latin1');
  const padding = end < 0 ? 0 : end + 1 - start;
  return Math.max(1, payload.length - padding - DELTA_JSON_BYTES);
}

/** The marks that are looked for inside base64, at each of the three places a byte can have in a group of three. */
const METRICS_MARKS = base64Marks('amazon-bedrock-invocationMetrics');
const GUARDRAIL_MARKS = base64Marks('amazon-bedrock-guardrailAction');
const CACHE_MARKS = base64Marks('ephemeral_1h_input_tokens');

/**
 * InvokeModelWithResponseStream: each chunk is `{"bytes": base64}` of the model's own JSON; the last one also carries AWS's metrics.
 * A chunk is decoded only when its base64 holds one of three marks.
 */
class InvokeTap extends Tap {
  #oneHourWrites: number | undefined;
  #begun = false;

  get complete(): boolean {
    return this.reported !== undefined;
  }

  protected override seeEvent(frame: Frame): void {
    // Three bytes in four of base64; the model's own JSON is in them too, which is never less than the text.
    this.outputBytes += Math.ceil(frame.payload.length * 0.75);
    if (!this.#begun) this.#seeBeginning(decodeChunk(frame));
    if (holds(frame.payload, CACHE_MARKS)) this.#seeCacheLifetimes(decodeChunk(frame));
    if (holds(frame.payload, METRICS_MARKS)) this.#seeMetrics(decodeChunk(frame));
    else if (holds(frame.payload, GUARDRAIL_MARKS)) this.#seeGuardrail(decodeChunk(frame));
  }

  #seeMetrics(chunk: Json | undefined): void {
    const metrics = asObject(chunk?.['amazon-bedrock-invocationMetrics']);
    if (metrics === undefined) return;
    const writes = splitCacheWrites(firstCount(metrics, 'cacheWriteInputTokenCount'), this.#oneHourWrites);
    this.reported = {
      provenance: 'metrics',
      tokens: tokens({
        input: firstCount(metrics, 'inputTokenCount'),
        output: firstCount(metrics, 'outputTokenCount'),
        cacheRead: firstCount(metrics, 'cacheReadInputTokenCount'),
        ...writes,
      }),
    };
  }

  /** Anthropic's message_start tells the input, and brings no output. */
  #seeBeginning(chunk: Json | undefined): void {
    this.#begun = true;
    if (chunk?.['type'] !== 'message_start') return;
    const told = tokensOfUsage(asObject(asObject(chunk['message'])?.['usage']) ?? {});
    if (told === undefined) return;
    this.inputTokens = inputOf(told);
    this.outputBytes = 0;
  }

  /** Metrics do not split cache writes by lifetime; Anthropic's message_start does. */
  #seeCacheLifetimes(chunk: Json | undefined): void {
    const usage = asObject(asObject(chunk?.['message'])?.['usage']) ?? asObject(chunk?.['usage']);
    this.#oneHourWrites = anthropicOneHourWrites(usage) ?? this.#oneHourWrites;
  }

  /** A guardrail that stops the input ends the stream with this one chunk and no metrics: no model ran. */
  #seeGuardrail(chunk: Json | undefined): void {
    if (chunk?.['amazon-bedrock-guardrailAction'] === 'INTERVENED')
      this.reported ??= { tokens: NO_TOKENS, provenance: 'none' };
  }
}

function decodeChunk(frame: Frame): Json | undefined {
  const bytes = parseObject(frame.payload)?.['bytes'];
  return typeof bytes === 'string' ? parseObject(Buffer.from(bytes, 'base64')) : undefined;
}

function holds(payload: Buffer, marks: readonly string[]): boolean {
  return marks.some((mark) => payload.includes(mark, 0, 'latin1'));
}

/** What a text looks like inside base64 at offsets 0, 1 and 2, without the characters that its neighbours share. */
function base64Marks(text: string): string[] {
  return [0, 1, 2].map((offset) => {
    const encoded = Buffer.concat([Buffer.alloc(offset), Buffer.from(text)])
      .toString('base64')
      .replaceAll('=', '');
    const skip = Math.ceil((offset * 8) / 6);
    const tail = ((offset + text.length) * 8) % 6 === 0 ? encoded.length : encoded.length - 1;
    return encoded.slice(skip, tail);
  });
}
