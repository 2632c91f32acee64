import { MISSED } from './round.ts';
import type { RunResult } from './run.ts';

/** From so many rounds on, chance cannot be why nothing was at stake. */
const TELLING_ROUNDS = 10;

/**
 * What keeps a run from being a proof: its faults, and that it did not do what was asked or that nothing could have gone wrong in it.
 * @param planned how many rounds were asked for. @returns in words; empty: it is one.
 */
export function verdict({ results, witnesses, faults }: RunResult, planned: number): string[] {
  const reasons = [...faults];
  if (results.length !== planned && faults.length === 0)
    reasons.push(`${String(results.length)} of ${String(planned)} rounds were done`);
  if (results.length < TELLING_ROUNDS) return reasons;
  const stakes: [string, boolean][] = [
    ['no call ran at AWS', witnesses.some(({ executed }) => executed)],
    ['no call was cut by a death', results.some(({ seen }) => seen.some(({ status }) => status === 'cut'))],
    ['no call was left in doubt', results.some(({ unknown }) => unknown > 0)],
    [
      'more than a tenth of the moments were missed',
      results.filter(({ point }) => point.endsWith(MISSED)).length <= results.length / 10,
    ],
  ];
  return [
    ...reasons,
    ...stakes.filter(([, was]) => !was).map(([reason]) => `nothing was at stake: ${reason}`),
  ];
}
