import { setTimeout as sleep } from 'node:timers/promises';

export interface UntilOptions {
  /** When to give up, in milliseconds. Far beyond what a busy machine takes: who waits for what comes about does not wait this long. */
  limitMs?: number;
  /** Between one look and the next, in milliseconds. */
  everyMs?: number;
}

const LIMIT_MS = 30_000;
const EVERY_MS = 10;

/** What was waited for did not come about in time. */
export class WaitedInVain extends Error {}

/**
 * Asks again until it is so, for what happens elsewhere and has no event here. Nothing is promised of the time after: what a worker of the
 * service may change again is not asked for a second time, but looked at with `eventually`.
 * @param what what is waited for, as the error tells it
 * @param look true, or the thing itself; false or undefined while it is not there
 * @returns what was found
 * @throws WaitedInVain with the place of the caller, so that it counts as a failure of its test, when it is not so within `limitMs`
 */
export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<Exclude<T, false | undefined>> {
  const inVain = new WaitedInVain(`waited ${String(options.limitMs ?? LIMIT_MS)} ms in vain: ${what}`);
  Error.captureStackTrace(inVain, until);
  const found = await eventually(look, isThere, options);
  if (!isThere(found)) throw inVain;
  return found;
}

function isThere<T>(found: T): found is Exclude<T, false | undefined> {
  return found !== false && found !== undefined;
}

/**
 * Looks again until what is seen is good, or for `limitMs`.
 * @returns what was seen last, good or not: for an `expect` to say which.
 */
export async function eventually<T>(
  look: () => T | Promise<T>,
  good: (seen: T) => boolean,
  { limitMs = LIMIT_MS, everyMs = EVERY_MS }: UntilOptions = {},
): Promise<T> {
  const giveUpAt = performance.now() + limitMs;
  for (;;) {
    const seen = await look();
    if (good(seen) || performance.now() > giveUpAt) return seen;
    await sleep(everyMs);
  }
}
