import { createHash } from 'node:crypto';
import { countTokens } from './prompt.ts';
import type { PromptItem } from './prompt.ts';
import type { Usage } from '../wire/answer.ts';

type InputUsage = Omit<Usage, 'output'>;

/**
 * Prompt caching as AWS reports it: a prefix up to a cache point is written the first time and read from then on, per account and
 * model. Unlike AWS there is no minimum length and nothing expires.
 */
export class PromptCache {
  readonly #prefixes = new Set<string>();

  /** Splits the prompt's tokens over the buckets, and remembers its prefixes. */
  count(scope: string, items: readonly PromptItem[]): InputUsage {
    const usage: InputUsage = { input: 0, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 };
    const prefix = createHash('sha256').update(scope);
    /** Tokens since the last cache point. */
    let pending = 0;
    for (const item of items) {
      if ('text' in item) {
        prefix.update(`\n${item.text}`);
        pending += countTokens(item.text);
        continue;
      }
      usage[this.#bucket(prefix.copy().digest('hex'), item.cachePoint)] += pending;
      pending = 0;
    }
    return { ...usage, input: pending };
  }

  forget(): void {
    this.#prefixes.clear();
  }

  #bucket(prefix: string, ttl: '5m' | '1h'): 'cacheRead' | 'cacheWrite5m' | 'cacheWrite1h' {
    if (this.#prefixes.has(prefix)) return 'cacheRead';
    this.#prefixes.add(prefix);
    return ttl === '1h' ? 'cacheWrite1h' : 'cacheWrite5m';
  }
}

/** The same prompt on a model that cannot cache: cache points mean nothing. */
export function countUncached(items: readonly PromptItem[]): InputUsage {
  const input = items.reduce((sum, item) => sum + ('text' in item ? countTokens(item.text) : 0), 0);
  return { input, cacheRead: 0, cacheWrite5m: 0, cacheWrite1h: 0 };
}
