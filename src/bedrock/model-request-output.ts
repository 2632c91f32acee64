import type { ModelFamily } from './model-families.ts';
import type { Edit } from './model-request-json.ts';
import { asObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** A number in a body; Infinity where it is not one that AWS would take, and so says nothing. */
interface Found {
  path: readonly string[];
  value: number;
}

/** What a body says of the length of its answer. */
export interface OutputLimits {
  /** Every member that limits the output in any family and spelling: a reader that knows it by another name sees no more than we. */
  limits: readonly Found[];
  /** Whether one of them is where the model's own family has it. */
  said: boolean;
  /** Where the family has its limit; empty where the family is not known. */
  primary: readonly string[];
  /** Thinking budgets; the path is that of the budget, in the object that switches thinking on. */
  budgets: readonly Found[];
  /** Answers asked for at once. */
  copies: number;
}

/** AWS refuses a smaller thinking budget. Source: platform.claude.com/docs/en/build-with-claude/extended-thinking. */
const THINKING_MIN = 1_024;
const LIMIT_MAX = 2 ** 31 - 1;

/** Names without case and underscores. */
const LIMITS = new Set([
  ...['maxtokens', 'maxnewtokens', 'maxtokenstosample', 'maxgenlen', 'maxtokencount'],
  ...['maxcompletiontokens', 'maxoutputtokens'],
]);
const COPIES = new Set(['n', 'bestof', 'numgenerations', 'numresults']);
const THINKING = new Set(['thinking', 'reasoningconfig', 'reasoning']);
const CONTAINERS = new Set(['inferenceconfig', 'textgenerationconfig', 'additionalmodelrequestfields']);

/** The names that bodies are made of are few; what callers make up besides fills this once and is worked out each time. */
const plainNames = new Map<string, string>();

/** A member's name without case and underscores: `MaxTokens`, `max_tokens` and `maxTokens` are one. */
export function plainName(name: string): string {
  const known = plainNames.get(name);
  if (known !== undefined) return known;
  const plain = name.replaceAll('_', '').toLowerCase();
  if (plainNames.size < 1_000 && name.length < 64) plainNames.set(name, plain);
  return plain;
}

export function readOutputLimits(json: Json, family: ModelFamily): OutputLimits {
  const limits: Found[] = [];
  const budgets: Found[] = [];
  let copies = Array.isArray(json['prompt']) ? Math.max(1, json['prompt'].length) : 1;
  forEachSetting(json, [], (name, value, path) => {
    if (LIMITS.has(name)) limits.push({ path, value: limitOf(value) });
    // JSON null is 'not said' here, and one answer is every family's default.
    else if (COPIES.has(name) && value !== null) copies *= limitOf(value);
    else if (THINKING.has(name)) budgets.push(...budgetsIn(value, path));
  });
  const own = family.limits;
  return {
    limits,
    said: own.length === 0 ? limits.length > 0 : limits.some(({ path }) => own.includes(path.join('.'))),
    primary: own[0]?.split('.') ?? [],
    budgets,
    copies,
  };
}

/** Undefined where the body does not say, or says what AWS would not take. @param closed whether it cannot be in the body */
export function outputTokensOf(
  { limits, said, budgets, copies }: OutputLimits,
  closed: boolean,
): number | undefined {
  if (!said || closed) return undefined;
  const limit = largest(limits);
  const budget = largest(budgets);
  // Claude thinks beyond max_tokens only where the budget is larger (interleaved thinking); else the budget is part of it.
  const total = (budget >= limit ? limit + budget : limit) * copies;
  return Number.isSafeInteger(total) ? total : undefined;
}

/** Whether {@link clampEdits} holds: there is a member to set, and it is known how often it counts. */
export function isClampable({ limits, primary, copies }: OutputLimits): boolean {
  return (primary.length > 0 || limits.length > 0) && Number.isSafeInteger(copies);
}

/**
 * What to change so that no more than `maxTokens` come back, all answers together; but each may have one token.
 * Limits are only lowered. A thinking budget stays where it fits under them, even beyond the limit where both together fit; else it is
 * lowered to one less than the limit, as AWS wants it, and where that is too little to think with, thinking is switched off.
 * @throws RangeError when `maxTokens` is not a whole number of 1 or more
 */
export function clampEdits(output: OutputLimits, maxTokens: number): Edit[] {
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 1)
    throw new RangeError('maxTokens is not a number of tokens');
  const share = Math.max(1, Math.floor(maxTokens / output.copies));
  const edits: Edit[] = output.limits
    .filter(({ value }) => value > share)
    .map(({ path }) => ({ path, value: share }));
  if (!output.said && output.primary.length > 0) edits.push({ path: output.primary, value: share });
  const limit = output.said ? Math.min(share, largest(output.limits)) : share;
  for (const { path, value } of output.budgets) {
    if (value < limit || limit + value <= share) continue;
    edits.push(
      limit > THINKING_MIN ? { path, value: limit - 1 } : { path: path.slice(0, -1), value: undefined },
    );
  }
  return edits;
}

/** Members of the body, of its configuration objects, and of those within Converse's additional fields. */
function forEachSetting(
  json: Json,
  above: readonly string[],
  visit: (name: string, value: unknown, path: readonly string[]) => void,
): void {
  for (const key of Object.keys(json)) {
    const name = plainName(key);
    const path = [...above, key];
    const inner = CONTAINERS.has(name) ? asObject(json[key]) : undefined;
    if (inner === undefined) visit(name, json[key], path);
    else forEachSetting(inner, path, visit);
  }
}

function budgetsIn(thinking: unknown, above: readonly string[]): Found[] {
  const object = asObject(thinking) ?? {};
  return Object.keys(object)
    .filter((key) => plainName(key) === 'budgettokens')
    .map((key) => ({ path: [...above, key], value: limitOf(object[key]) }));
}

function limitOf(value: unknown): number {
  const valid = typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= LIMIT_MAX;
  return valid ? value : Infinity;
}

function largest(found: readonly Found[]): number {
  return found.reduce((most, { value }) => Math.max(most, value), 0);
}
