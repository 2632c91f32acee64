/** Measures the service against a bare signing proxy and against the stand-in for AWS itself. See --help. */
import { writeFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { startHouse } from './bench/house.ts';
import type { House } from './bench/house.ts';
import { LoadGenerator } from './bench/load-generator.ts';
import { measureAll } from './bench/measure.ts';
import type { Bench } from './bench/measure.ts';
import { measureMemory } from './bench/memory.ts';
import { measureNeighbours } from './bench/neighbours.ts';
import { HELP, readPlan } from './bench/options.ts';
import type { Plan } from './bench/options.ts';
import { profileService } from './bench/profile.ts';
import { errorsOf, render } from './bench/report.ts';
import type { MachineFacts, Results } from './bench/report.ts';
import { onboardAll } from './bench/requests.ts';
import { Failure, Interrupted, print, run, wasStarted } from './cli/run.ts';

async function main(): Promise<void> {
  const plan = readPlan(process.argv.slice(2));
  if (plan === undefined) return print(HELP, '');
  if (process.platform !== 'linux') throw new Failure('CPU time is read from /proc: this needs Linux.');
  const stopped = signalled();
  const startedAt = performance.now();
  const say = (line: string) => {
    process.stderr.write(`[${((performance.now() - startedAt) / 1_000).toFixed(0).padStart(4)} s] ${line}\n`);
  };
  const results = await measured(plan, say, stopped).catch((error: unknown) => {
    throw stopped.aborted ? new Interrupted() : error;
  });
  if (plan.json !== undefined) writeFileSync(plan.json, `${JSON.stringify(results, undefined, 2)}\n`);
  await print(`${render(results)}\n`, 'Use --json FILE to keep them.');
  const errors = errorsOf(results);
  if (errors.length > 0) throw new Failure(`The run had errors:\n${errors.join('\n')}`);
}

async function measured(plan: Plan, say: (line: string) => void, stopped: AbortSignal): Promise<Results> {
  const [loadBefore = 0] = loadavg();
  await using house = await startHouse(say, stopped);
  await using generator = new LoadGenerator(stopped);
  const merchants = await onboardAll(house, plan.merchants, stopped);
  say(`${String(merchants.length)} merchants are onboarded`);
  const bench: Bench = { plan, house, generator, merchants, say, stopped };
  return {
    machine: machineFacts(plan, loadBefore, house),
    cells: await measureAll(bench),
    neighbours: await measureNeighbours(bench),
    memory: await measureMemory(bench),
    profiles: await profileService(bench),
  };
}

function machineFacts(plan: Plan, loadBefore: number, { database, built }: House): MachineFacts {
  const [cpu] = cpus();
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpu?.model.trim() ?? 'unknown CPU',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    postgres: database.version,
    fsync: database.fsync,
    synchronousCommit: database.synchronousCommit,
    commitMs: database.commitMs,
    loadBefore,
    built,
    merchants: plan.merchants,
    rounds: plan.rounds,
    seconds: plan.seconds,
  };
}

/** The first Ctrl-C stops everything in order; the second one ends at once, and what runs is killed. */
function signalled(): AbortSignal {
  const abort = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (abort.signal.aborted) process.exit(130);
      abort.abort();
    });
  }
  return abort.signal;
}

if (wasStarted(import.meta.url)) run('bench', 'Not measured', main);
