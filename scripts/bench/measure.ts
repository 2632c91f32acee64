import { Failure, Interrupted } from '../cli/run.ts';
import type { House } from './house.ts';
import type { Job, Round } from './job.ts';
import type { LoadGenerator } from './load-generator.ts';
import type { Plan, RouteName, TargetName } from './options.ts';
import { MARKERS, bareRequest, serviceRequest, signedRequest } from './requests.ts';
import type { BenchMerchant } from './requests.ts';

/** All rounds of one target on one route at one number in flight. */
export interface Cell {
  route: RouteName;
  inFlight: number;
  target: TargetName;
  rounds: Round[];
}

export interface Bench {
  plan: Plan;
  house: House;
  generator: LoadGenerator;
  merchants: readonly BenchMerchant[];
  say: (line: string) => void;
  stopped: AbortSignal;
}

const WARM_UP_IN_FLIGHT = 16;
const WARM_UP_SECONDS = 3;

/** Rounds of the targets alternate, so that what else the machine does meets all of them. */
export async function measureAll(bench: Bench): Promise<Cell[]> {
  const { plan, say } = bench;
  if (plan.targets.length === 0) return [];
  await warmUp(bench);
  const cells: Cell[] = [];
  for (const route of plan.routes) {
    for (const inFlight of plan.inFlight) {
      const group = plan.targets.map((target): Cell => ({ route, inFlight, target, rounds: [] }));
      for (let round = 0; round < plan.rounds; round += 1) {
        for (const cell of group) cell.rounds.push(await measure(bench, cell, plan));
      }
      cells.push(...group);
      say(`${route}, ${String(inFlight)} in flight: ${group.map(inShort).join(', ')}`);
    }
  }
  return cells;
}

/** Until code is compiled and connections, credentials and pages are where they are after a while. */
async function warmUp(bench: Bench): Promise<void> {
  const { plan, merchants, say } = bench;
  say('warming up');
  const seconds = Math.min(WARM_UP_SECONDS, plan.seconds);
  for (const route of plan.routes) {
    for (const target of plan.targets)
      await measure(bench, { route, target, inFlight: WARM_UP_IN_FLIGHT }, { rampSeconds: 0, seconds });
  }
  // Each merchant's credential is opened at least once.
  if (plan.targets.includes('many'))
    await measure(
      bench,
      { route: 'invoke', target: 'many', inFlight: WARM_UP_IN_FLIGHT },
      { rampSeconds: 0, seconds: merchants.length / 200 },
    );
}

export async function measure(
  bench: Bench,
  { route, target, inFlight }: Omit<Cell, 'rounds'>,
  { rampSeconds, seconds }: Pick<Job, 'rampSeconds' | 'seconds'>,
): Promise<Round> {
  const { house, generator, stopped } = bench;
  if (stopped.aborted) throw new Interrupted();
  await clearJournal(house);
  const { service, bareProxy, standIn, database } = house;
  return generator.load({
    ...toTarget(bench, route, target),
    marker: MARKERS[route],
    inFlight,
    rampSeconds,
    seconds,
    watched: {
      service: { pid: service.pid, family: false },
      bareProxy: { pid: bareProxy.pid, family: false },
      standIn: { pid: standIn.pid, family: false },
      postgres: { pid: database.pid, family: true },
    },
  });
}

function toTarget({ house, merchants }: Bench, route: RouteName, target: TargetName) {
  const { service, bareProxy, standIn } = house;
  switch (target) {
    case 'direct':
      return { port: standIn.port, requests: [signedRequest(route, standIn.port)] };
    case 'bare':
      return { port: bareProxy.port, requests: [bareRequest(route, bareProxy.port)] };
    case 'one':
      return toService(service.port, route, merchants.slice(0, 1));
    case 'many':
      return toService(service.port, route, merchants);
  }
}

export function toService(port: number, route: RouteName, merchants: readonly BenchMerchant[]) {
  return { port, requests: merchants.map((merchant) => serviceRequest(route, merchant, port)) };
}

/** The stand-in remembers every request; over minutes its own memory would slow it down. */
export async function clearJournal({ standIn }: House): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${String(standIn.port)}/_stand-in/journal`, {
    method: 'DELETE',
  });
  if (!answer.ok) throw new Failure('the stand-in did not clear its journal');
}

function inShort({ target, rounds }: Cell): string {
  const rates = rounds.map(({ latency, seconds }) => Math.round(latency.count / seconds));
  const errors = rounds.reduce((sum, round) => sum + round.errors, 0);
  const first = rounds.find(({ firstError }) => firstError !== undefined)?.firstError;
  return `${target} ${rates.join('/')} per s${errors === 0 ? '' : ` (${String(errors)} ERRORS, first: ${first ?? ''})`}`;
}
