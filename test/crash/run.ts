import { setMaxListeners } from 'node:events';
import { chains, compare, compareAudit, differences, groupBy, limitsPassed, readRows } from './books.ts';
import type { Row } from './books.ts';
import { Chance } from './chance.ts';
import { lastWords } from './house.ts';
import type { House } from './house.ts';
import { idsOf, newHousehold, newPlan } from './household.ts';
import type { Household } from './household.ts';
import { deal, POINTS } from './points.ts';
import type { KillPoint } from './points.ts';
import { runRound } from './round.ts';
import type { RoundResult } from './round.ts';
import type { Witness } from './witness.ts';

export interface RunOrder {
  seed: number;
  /** Rounds in which the service is killed, and in which Postgres is. */
  rounds: number;
  postgresRounds: number;
  /** Names of kill points, and numbers of rounds as a run of this seed counts them; empty: all. */
  only: readonly string[];
  stopped: AbortSignal;
}

export interface RunResult {
  results: RoundResult[];
  /** Every row of every merchant, at the end. */
  rows: Row[];
  witnesses: Witness[];
  /** Of all rounds, and of the last look at everything. */
  faults: string[];
  differences: number;
  brokenChains: number;
}

/** The same merchants live through so many deaths; checks read all they ever did, so they are replaced. */
const ROUNDS_OF_A_HOUSEHOLD = 8;

interface Planned {
  number: number;
  point: KillPoint;
}

/** Which rounds a run has. The same seed has the same, whichever of them are chosen. */
export function planRounds({ seed, rounds, postgresRounds, only }: Omit<RunOrder, 'stopped'>): Planned[] {
  const chance = new Chance(seed);
  const all = [
    ...deal('service', rounds, chance),
    // Dealt by themselves: how many rounds the service has must not change them.
    ...deal('postgres', postgresRounds, new Chance(seed ^ 0x5eed)),
  ].map((point, index) => ({ number: index + 1, point }));
  if (only.length === 0) return all;
  return all.filter(({ number, point }) => only.includes(point.name) || only.includes(String(number)));
}

/** Names that `only` may hold beside numbers. */
export const POINT_NAMES: readonly string[] = POINTS.map(({ name }) => name);

/** Round after round until one has a fault; then everything is looked at once more. */
export async function run(house: House, order: RunOrder): Promise<RunResult> {
  const results: RoundResult[] = [];
  const households: Household[] = [];
  const witnesses: Witness[] = [];
  let earlier: Witness[] = [];
  // Every call listens for it.
  setMaxListeners(0, order.stopped);
  await house.startService();
  await newPlan(house);
  for (const { number, point } of planRounds(order)) {
    if (order.stopped.aborted) break;
    if (results.length % ROUNDS_OF_A_HOUSEHOLD === 0) {
      households.push(await newHousehold(house, `h${String(households.length + 1)}`));
      earlier = [];
    }
    const household = households.at(-1);
    if (household === undefined) throw new Error('nobody lives here');
    const startedAt = performance.now();
    // Each round has its own chance, so that it can be repeated without those before it.
    const chance = new Chance(order.seed + Math.imul(number, 0x9e3779b1));
    const result = await runRound(house, {
      number,
      point,
      chance,
      household,
      earlier,
      stopped: order.stopped,
    }).catch((error: unknown) => failed(number, point, error));
    results.push(result);
    witnesses.push(...result.witnesses);
    earlier.push(...result.witnesses);
    house.say(line(result, performance.now() - startedAt));
    if (result.faults.length === 0) continue;
    for (const fault of result.faults) house.say(`  ! ${fault}`);
    house.say(lastWords(house.service));
    break;
  }
  return lastLook(house, { results, households, witnesses });
}

async function lastLook(
  house: House,
  {
    results,
    households,
    witnesses,
  }: { results: RoundResult[]; households: Household[]; witnesses: Witness[] },
): Promise<RunResult> {
  const merchants = households.flatMap(idsOf);
  const residents = households.flatMap(({ open, tight }) => [open, tight]);
  const rows = await readRows(house.admin, merchants);
  const [different, broken] = [
    await differences(house.admin, merchants),
    await chains(house.audit, [...merchants, '~system']),
  ];
  const faults = [
    ...results.flatMap(({ number, faults }) => faults.map((fault) => `round ${String(number)}: ${fault}`)),
    ...compare(rows, witnesses, residents),
    ...compareAudit(rows),
    ...different,
    ...broken,
    ...(await limitsPassed(house.admin, merchants)),
  ];
  return {
    results,
    rows,
    witnesses,
    faults: [...new Set(faults)],
    differences: different.length,
    brokenChains: broken.length,
  };
}

/** A round that could not be ended is a fault like any other. */
function failed(number: number, point: KillPoint, error: unknown): RoundResult {
  return {
    number,
    point: point.name,
    limit: '',
    seen: [],
    witnesses: [],
    brokenOff: 0,
    unknown: 0,
    resolved: 0,
    faults: [error instanceof Error ? (error.stack ?? error.message) : String(error)],
  };
}

function line({ number, point, seen, witnesses, unknown, faults, limit }: RoundResult, ms: number): string {
  const count = (status: 'cut' | 'left') => seen.filter((one) => one.status === status).length;
  const parts = [
    `${String(seen.length)} calls`,
    `${String(witnesses.length)} at AWS`,
    `${String(count('cut'))} cut`,
    `${String(count('left'))} left`,
    `${String(unknown)} unknown`,
    `limit ${limit}`,
  ];
  return `${String(number).padStart(4)} ${point.padEnd(18)} ${parts.join(', ')}, ${(ms / 1_000).toFixed(1)} s: ${faults.length === 0 ? 'all holds' : 'FAULT'}`;
}

/** Requests that came to AWS under an id that was used before, and calls of a caller that ran more than once. */
export function duplicatesIn(witnesses: readonly Witness[]): number {
  const ids = groupBy(witnesses, ({ callId }) => callId ?? '');
  const ran = groupBy(
    witnesses.filter(({ executed, tag }) => executed && tag !== undefined),
    ({ tag }) => tag ?? '',
  );
  return [...ids.values(), ...ran.values()].filter((group) => group.length > 1).length;
}
