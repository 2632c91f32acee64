import { Failure, Interrupted } from '../cli/run.ts';
import type { Closed, Pace, PacedReport } from './job.ts';
import { clearJournal, toService } from './measure.ts';
import type { Bench } from './measure.ts';
import { MARKERS } from './requests.ts';

const ROUTE = 'converse';
export const OTHERS = 50;
/** Calls per second of each of them: together a tenth of what two cores carry. */
export const PACE = 1;
/** What the busy one does: fifty times what another does; fifty times an equal part of what two cores carry; all it can, at 256 at once. */
export const FLOODS = {
  none: undefined,
  'fifty-times': { perSecond: 50 * PACE },
  'most-of-the-machine': { perSecond: 500 },
  'all-it-can': { inFlight: 256 },
} as const satisfies Record<string, Pace | Closed | undefined>;
export type FloodName = keyof typeof FLOODS;

/** The same callers with one flood beside them, a report for each round. */
export interface NeighbourCell {
  flood: FloodName;
  /** Of a round. */
  seconds: number;
  rounds: PacedReport['callers'][];
}

/** Fifty merchants that call now and then, alone and beside one that floods. Rounds alternate. */
export async function measureNeighbours(bench: Bench): Promise<NeighbourCell[]> {
  const { plan, merchants, say } = bench;
  if (plan.neighbourSeconds === 0) return [];
  if (merchants.length <= OTHERS) throw new Failure('too few merchants for this');
  await one(bench, 'most-of-the-machine');
  const cells = (Object.keys(FLOODS) as FloodName[]).map((flood): NeighbourCell => ({
    flood,
    seconds: plan.neighbourSeconds,
    rounds: [],
  }));
  for (let round = 0; round < plan.rounds; round += 1)
    for (const { flood, rounds } of cells) {
      const callers = await one(bench, flood);
      rounds.push(callers);
      say(`neighbours beside ${flood}: p99 ${callers['others']?.latency.p99.toFixed(0) ?? ''} ms`);
    }
  return cells;
}

async function one(bench: Bench, flood: FloodName): Promise<PacedReport['callers']> {
  const { plan, house, generator, merchants, stopped } = bench;
  if (stopped.aborted) throw new Interrupted();
  await clearJournal(house);
  const { port } = house.service;
  const others = toService(port, ROUTE, merchants.slice(0, OTHERS)).requests;
  const busy = toService(port, ROUTE, merchants.slice(OTHERS, OTHERS + 1)).requests;
  const beside = FLOODS[flood];
  const { callers } = await generator.paced({
    port,
    marker: MARKERS[ROUTE],
    seconds: plan.neighbourSeconds,
    callers: [
      { name: 'others', requests: others, perSecond: OTHERS * PACE },
      ...(beside === undefined ? [] : [{ name: 'flood', requests: busy, ...beside }]),
    ],
  });
  return callers;
}
