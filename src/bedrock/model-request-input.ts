import type { ModelFamily } from './model-families.ts';
import { InputMedia } from './model-request-media.ts';
import { plainName } from './model-request-output.ts';
import { asObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** The input has no bound but the model's context: documents, video, audio, what is fetched from elsewhere. */
export const UNBOUNDED_INPUT = Number.MAX_SAFE_INTEGER;

/** What a template puts around a call: system preambles, dates, the question after the last message. Seen: below 400. */
const CALL_TOKENS = 1_024;
/**
 * The hidden prompt that tools, documents to cite or a schema for the answer bring along. Claude: up to 530, in newer models up to about
 * 800 (platform.claude.com, 'Tool use pricing'); Cohere's templates for tools and documents about 1,000.
 */
const TOOLS_TOKENS = 4_096;
/** Claude's own tools bring their schema, which is not in the body: up to 735 each (computer use), and about 500 once. Same source. */
const BUILT_IN_TOOL_TOKENS = 2_048;
/**
 * For each JSON value on top of its bytes: markers around messages and blocks, and the line breaks and indentation of templates that print
 * schemas prettily. A message is five values or more.
 */
const VALUE_TOKENS = 8;
/** A number may be printed longer than it was written: 1e20 as 21 digits. */
const NUMBER_TOKENS = 24;

const BRING_PROMPTS = new Set([
  ...['tools', 'toolconfig', 'functions', 'documents', 'responseformat', 'outputconfig', 'outputformat'],
]);
const BUILT_IN_TOOL = /^(bash|text_editor|computer|memory)_\d+$/;

/** What a walk over the whole body counts. */
export interface Census {
  members: number;
  values: number;
  numbers: number;
  /** Bytes by which texts grow when a tokenizer normalises them (NFKC): one character of three bytes may become 33. */
  growth: number;
}

/**
 * No answer can report more input tokens than this: one for every byte of the body (a token of a byte-level tokenizer covers at least one,
 * and JSON's escapes only lengthen), media by their own measure, and what templates add.
 */
export function inputTokensOf(json: Json, bytes: number, family: ModelFamily, census: Census): number {
  const media = new InputMedia(family);
  media.read(json);
  if (media.unbounded) return UNBOUNDED_INPUT;
  const tools = toolTokensOf(json);
  const text = bytes - media.bytes + census.growth;
  const template = CALL_TOKENS + census.values * VALUE_TOKENS + census.numbers * NUMBER_TOKENS;
  return Math.min(UNBOUNDED_INPUT, text + template + tools + media.images * family.imageTokens);
}

/** @param plain whether all of the text is ASCII and no character is written as an escape, so that nothing can grow */
export function censusOf(json: Json, plain: boolean): Census {
  const census = { members: 0, values: 0, numbers: 0, growth: 0 };
  count(json, census, plain);
  return census;
}

function count(value: unknown, census: Census, plain: boolean): void {
  census.values += 1;
  if (typeof value === 'string') {
    if (!plain) census.growth += growthOf(value);
  } else if (typeof value === 'number') {
    census.numbers += 1;
  } else if (typeof value === 'object' && value !== null) {
    if (Array.isArray(value)) for (const element of value) count(element, census, plain);
    else countMembers(value as Json, census, plain);
  }
}

function countMembers(object: Json, census: Census, plain: boolean): void {
  for (const key of Object.keys(object)) {
    census.members += 1;
    if (!plain) census.growth += growthOf(key);
    count(object[key], census, plain);
  }
}

function growthOf(text: string): number {
  // eslint-disable-next-line no-control-regex -- all of ASCII
  if (/^[\x00-\x7f]*$/.test(text)) return 0;
  return Math.max(0, Buffer.byteLength(text.normalize('NFKC')) - Buffer.byteLength(text));
}

/** Infinity where AWS runs a tool itself: what it brings back is read as input. */
function toolTokensOf(json: Json): number {
  let tokens = 0;
  for (const key of Object.keys(json)) {
    const name = plainName(key);
    const value = json[key];
    if (BRING_PROMPTS.has(name)) tokens += TOOLS_TOKENS;
    if (name === 'tools' && Array.isArray(value))
      tokens += value.reduce((sum: number, tool) => sum + builtInTokensOf(tool), 0);
    const inner =
      name === 'toolconfig' || name === 'additionalmodelrequestfields' ? asObject(value) : undefined;
    if (inner !== undefined) tokens += toolTokensOf(inner);
  }
  return tokens;
}

function builtInTokensOf(tool: unknown): number {
  const object = asObject(tool) ?? {};
  if (Object.keys(object).some((key) => plainName(key) === 'systemtool')) return Infinity;
  const type = object['type'];
  if (typeof type !== 'string' || type === 'custom' || type === 'function') return 0;
  return BUILT_IN_TOOL.test(type) ? BUILT_IN_TOOL_TOKENS : Infinity;
}
