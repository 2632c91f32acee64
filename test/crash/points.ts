import { setTimeout as sleep } from 'node:timers/promises';
import type { JournalEntry } from '../aws/journal.ts';
import type { Chance } from './chance.ts';
import { until } from './house.ts';
import type { House, Remains } from './house.ts';
import type { LoadPlan } from './load.ts';
import { isPaid } from './witness.ts';

export interface Scene {
  house: House;
  chance: Chance;
  /** Ids of the merchants of the round. */
  merchants: readonly string[];
  /** No call of the load is under way or to come. */
  isOver: () => boolean;
}

/** What a point keeps in its hands while the victim dies. */
export interface Grip {
  /** The victim is dead and its successor not yet there. */
  onDeath: (remains: Remains) => Promise<void>;
  /** The successor runs, and has taken over what the dead one held. */
  onTakeOver: () => Promise<void>;
}

/** A moment at which a process is killed. Every one is observed from outside: through the stand-in, the gate or the database. */
export interface KillPoint {
  name: string;
  /** Who is killed. `both`: Postgres first, and the service while it tries to settle. */
  victim: 'service' | 'postgres' | 'both';
  /** How often it comes, compared with the others. */
  weight: number;
  plan?: Partial<LoadPlan>;
  /** Returns when the moment has come; the load runs meanwhile. @throws WaitedInVain when it does not come: with no call left to wait for it */
  reach: (scene: Scene) => Promise<Grip>;
}

export const NOTHING: Grip = { onDeath: () => Promise.resolve(), onTakeOver: () => Promise.resolve() };

const SERVICE_POINTS: readonly KillPoint[] = [
  { name: 'random', victim: 'service', weight: 6, reach: atRandom },
  {
    name: 'held-request-lost',
    victim: 'service',
    weight: 1,
    reach: (scene) => whenHeldAtTheGate(scene, 'lose'),
  },
  {
    name: 'held-request-late',
    victim: 'service',
    weight: 1,
    reach: (scene) => whenHeldAtTheGate(scene, 'deliver'),
  },
  {
    name: 'streaming',
    victim: 'service',
    weight: 1,
    plan: { pace: { eventDelayMs: 8 } },
    reach: whenStreaming,
  },
  {
    name: 'settling-lost',
    victim: 'service',
    weight: 1,
    plan: { pace: { delayMs: 120 } },
    reach: (scene) => whenWaiting(scene, 'ledger_settle', 'lost'),
  },
  {
    name: 'settling-late',
    victim: 'service',
    weight: 1,
    plan: { pace: { delayMs: 120 } },
    reach: (scene) => whenWaiting(scene, 'ledger_settle', 'late'),
  },
  {
    name: 'holding-lost',
    victim: 'service',
    weight: 1,
    plan: { spreadMs: 600 },
    reach: (scene) => whenWaiting(scene, 'ledger_hold', 'lost'),
  },
  {
    name: 'holding-late',
    victim: 'service',
    weight: 1,
    plan: { spreadMs: 600 },
    reach: (scene) => whenWaiting(scene, 'ledger_hold', 'late'),
  },
  { name: 'leaving', victim: 'service', weight: 1, reach: whenLeaving },
];

const POSTGRES_POINTS: readonly KillPoint[] = [
  { name: 'postgres-random', victim: 'postgres', weight: 2, reach: atRandom },
  {
    name: 'postgres-holding',
    victim: 'postgres',
    weight: 1,
    plan: { spreadMs: 600 },
    reach: (scene) => whenWaiting(scene, 'ledger_hold', 'lost'),
  },
  {
    name: 'postgres-settling',
    victim: 'postgres',
    weight: 1,
    plan: { pace: { delayMs: 120 } },
    reach: (scene) => whenWaiting(scene, 'ledger_settle', 'lost'),
  },
  {
    name: 'settlement-retries',
    victim: 'both',
    weight: 1,
    plan: { pace: { delayMs: 120 } },
    reach: whenCallsAreOut,
  },
];

export const POINTS: readonly KillPoint[] = [...SERVICE_POINTS, ...POSTGRES_POINTS];

/** The points of a run, in an order of chance that gives each its share even in a short one. */
export function deal(kind: 'service' | 'postgres', rounds: number, chance: Chance): KillPoint[] {
  const deck = (kind === 'service' ? SERVICE_POINTS : POSTGRES_POINTS).flatMap((point) =>
    Array.from({ length: point.weight }, () => point),
  );
  const dealt: KillPoint[] = [];
  while (dealt.length < rounds) dealt.push(...chance.shuffled(deck));
  return dealt.slice(0, rounds);
}

/** Anywhere in the load. Counted in requests that came to AWS and not in time, so that a slow machine dies in the middle of things too. */
async function atRandom({ house, chance, isOver }: Scene): Promise<Grip> {
  const requests = chance.between(0, 26);
  await until('the load moves', () => callsAtAws(house.standIn.journal) >= requests || isOver());
  await sleep(chance.between(0, 60));
  return NOTHING;
}

/** Calls are held and sent, and have not come to AWS: there the gate keeps them. */
async function whenHeldAtTheGate(scene: Scene, what: 'lose' | 'deliver'): Promise<Grip> {
  const { house, chance, merchants } = scene;
  await sleep(chance.between(20, 250));
  house.gate.close();
  await until(
    'calls are held whose request is on its way',
    async () => house.gate.waiting >= 2 && (await house.heldRows(merchants)) >= 2,
  );
  const open = () => {
    house.gate.open(what);
    return Promise.resolve();
  };
  return what === 'lose' ? { ...NOTHING, onDeath: open } : { ...NOTHING, onTakeOver: open };
}

async function whenStreaming({ house, chance }: Scene): Promise<Grip> {
  const streams = chance.between(1, 3);
  await until('answers stream', () => openStreams(house.standIn.journal) >= streams);
  return NOTHING;
}

function openStreams(journal: readonly JournalEntry[]): number {
  return journal.filter(({ outcome, eventsSent }) => outcome === 'open' && eventsSent >= 2).length;
}

/**
 * A batch waits in Postgres for a lock that the harness has. `lost`: its sessions end with the process, as when a host is gone. `late`: they
 * go on, and commit when the lock is free, long after the process died and its lease ended.
 */
async function whenWaiting(
  scene: Scene,
  statement: 'ledger_hold' | 'ledger_settle',
  fate: 'lost' | 'late',
): Promise<Grip> {
  const { house, chance, merchants } = scene;
  await until('calls are out', () => openCalls(house.standIn.journal) >= 3);
  const lock = await house.lockHeads(merchants);
  try {
    await until(`${statement} waits`, async () => (await house.waitingFor(statement)) > 0);
    await sleep(chance.between(0, 120));
  } catch (error) {
    await lock.release();
    throw error;
  }
  if (fate === 'late') return { ...NOTHING, onTakeOver: lock.release };
  return {
    ...NOTHING,
    onDeath: async ({ sessions }) => {
      await house.endSessions(sessions);
      await house.sessionsOver(sessions);
      await lock.release();
    },
  };
}

async function whenCallsAreOut({ house }: Scene): Promise<Grip> {
  await until('calls are out', () => openCalls(house.standIn.journal) >= 4);
  return NOTHING;
}

function openCalls(journal: readonly JournalEntry[]): number {
  return journal.filter((entry) => entry.outcome === 'open' && isPaid(entry)).length;
}

function callsAtAws(journal: readonly JournalEntry[]): number {
  return journal.filter(isPaid).length;
}

/** It was asked to leave, and is killed before it has. */
async function whenLeaving(scene: Scene): Promise<Grip> {
  const { house, chance } = scene;
  await atRandom(scene);
  house.service.child.kill('SIGTERM');
  await sleep(chance.between(0, 150));
  return NOTHING;
}
