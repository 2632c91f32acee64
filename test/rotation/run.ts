import { setTimeout as sleep } from 'node:timers/promises';
import { Chance } from '../crash/chance.ts';
import { readBooks } from './books.ts';
import type { Books } from './books.ts';
import { dieAt } from './deaths.ts';
import { Load } from './load.ts';
import type { LoadResult } from './load.ts';
import { rotateOnce } from './rotate.ts';
import type { Rotator } from './rotate.ts';
import type { Citizen, Key, Town } from './town.ts';

export interface RotationOrder {
  seed: number;
  /** How long rotations go on under load. Milliseconds. */
  forMs: number;
  /** From the beginning of one to that of the next. Milliseconds. */
  everyMs: number;
  /** Steps in which a process is killed, one after the other. */
  deaths: readonly string[];
  callers: number;
  say?: (line: string) => void;
}

export interface RotationResult extends LoadResult, Books {
  /** Secrets that were found where none may be. */
  leaks: string[];
  rotations: number;
  rollbacks: number;
  crashes: number;
}

/** Rotations under load, then deaths under load, then the books. */
export async function runRotations(town: Town, order: RotationOrder): Promise<RotationResult> {
  const say = order.say ?? (() => undefined);
  const rotator: Rotator = { town, chance: new Chance(order.seed), keys: new Map(), current: new Map() };
  const citizens = await Promise.all(
    ['100000000001', '200000000002'].map((accountId, index) =>
      settle(rotator, accountId, `town-${String(index + 1)}`),
    ),
  );
  const load = new Load(town, citizens, order.callers);
  const done = { rotations: 0, rollbacks: 0, crashes: 0 };
  const faults: string[] = [];
  try {
    const endsAt = performance.now() + order.forMs;
    for (let turn = 0; performance.now() < endsAt; turn += 1) {
      const nextAt = performance.now() + order.everyMs;
      const outcome = await rotateOnce(rotator, citizens[turn % citizens.length] as Citizen);
      done.rotations += 1;
      if (outcome === 'rolled back') done.rollbacks += 1;
      if (done.rotations % 20 === 0)
        say(
          `${String(done.rotations)} rotations, ${String(load.result.calls)} calls, ${String(load.result.failed.length)} failed`,
        );
      await sleep(Math.max(0, nextAt - performance.now()));
    }
    for (const name of order.deaths) {
      faults.push(...(await dieAt(name, rotator, { citizen: citizens[0] as Citizen, load })));
      done.crashes += 1;
      say(`killed while ${name}: ${faults.length === 0 ? 'all holds' : faults.join('; ')}`);
    }
  } finally {
    await load.end();
  }
  const books = await readBooks(town, citizens, rotator.keys);
  const leaks = await town.leaks();
  return { ...done, ...load.result, ...books, leaks, faults: [...faults, ...books.faults] };
}

async function settle({ town, keys, current }: Rotator, accountId: string, id: string): Promise<Citizen> {
  const key: Key = town.newKey(accountId);
  keys.set(key.accessKeyId, key);
  current.set(id, key);
  return town.moveIn(id, key);
}

/** A line for each number. */
export function render(result: RotationResult): string {
  const rows: [string, number][] = [
    ['rotations', result.rotations],
    ['  of them rolled back', result.rollbacks],
    ['processes killed in the middle of one', result.crashes],
    ['calls', result.calls],
    ['  failed (must be 0)', result.failed.length],
    ['  cut by the death of their process', result.cut],
    ['  admitted with the current version', result.byCurrent],
    ['  admitted with the one before, in its overlap', result.byOverlap],
    ['  first tries that AWS refused (made again with the other version)', result.voided],
    ['  signed by a retired version (must be 0)', result.byRetired],
    ['secrets found in outputs, tables and the vault at AWS (must be 0)', result.leaks.length],
  ];
  return rows.map(([name, value]) => `${name.padEnd(70)} ${String(value).padStart(8)}`).join('\n');
}

/** Everything that may not be. */
export function problemsOf(result: RotationResult): string[] {
  return [
    ...result.failed.slice(0, 20).map((text) => `failed: ${text}`),
    ...(result.byRetired === 0
      ? []
      : [`${String(result.byRetired)} requests were signed by a retired version`]),
    ...result.leaks,
    ...result.faults,
  ];
}
