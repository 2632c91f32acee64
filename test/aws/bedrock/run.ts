import { createHash } from 'node:crypto';
import { words } from './prompt.ts';
import type { Prompt } from './prompt.ts';
import type { Usage } from '../wire/answer.ts';

/** The outcome of one model run, before any family has put it into its own words. */
export interface Run {
  text: string;
  /** `text` in the pieces in which a stream sends it; joined they are `text` again. */
  deltas: readonly string[];
  stopped: 'end' | 'length';
  usage: Usage;
  /** Deterministic, from account and prompt: for the ids inside answers. */
  id: string;
  latencyMs: number;
  firstByteMs: number;
}

/** Produces so many words whatever was said: for long streams. */
const WORDS_DIRECTIVE = /STAND_IN_WORDS=(\d{1,6})/;
const WORDS_MAX = 100_000;
const WORDS_PER_DELTA = 4;
/** How much of what was said comes back. */
const ECHO_WORDS_MAX = 40;

/**
 * Answers from the prompt and the payer alone: the same question of the same account has always the same answer, and two accounts
 * never have the same. One word is one token.
 */
export function runModel(prompt: Prompt, accountId: string, input: Omit<Usage, 'output'>): Run {
  const whole = answerWords(prompt.said, accountId);
  const kept = whole.slice(0, prompt.maxTokens ?? whole.length);
  const text = kept.join(' ');
  return {
    text,
    deltas: inPieces(kept),
    stopped: kept.length < whole.length ? 'length' : 'end',
    usage: { ...input, output: kept.length },
    id: createHash('sha256').update(`${accountId}\n${prompt.said}`).digest('hex').slice(0, 24),
    latencyMs: 100 + kept.length,
    firstByteMs: 50,
  };
}

function answerWords(said: string, accountId: string): string[] {
  const [, count] = WORDS_DIRECTIVE.exec(said) ?? [];
  const payer = `[${accountId}]`;
  if (count !== undefined) {
    return Array.from({ length: Math.min(Number(count), WORDS_MAX) }, (_, i) =>
      i === 0 ? payer : `word${String(i)}`,
    );
  }
  const heard = words(said);
  const echo = heard.slice(0, ECHO_WORDS_MAX);
  return [payer, 'You', 'said', String(heard.length), 'words:', ...echo];
}

function inPieces(all: readonly string[]): string[] {
  const pieces: string[] = [];
  for (let i = 0; i < all.length; i += WORDS_PER_DELTA) {
    pieces.push(`${i === 0 ? '' : ' '}${all.slice(i, i + WORDS_PER_DELTA).join(' ')}`);
  }
  return pieces;
}
