import { setTimeout as sleep } from 'node:timers/promises';
import type { CallId, MerchantId } from '../../src/domain/ids.ts';
import { Person } from '../support/people.ts';
import { chains, compare, compareAudit, differences, limitsPassed, readRows } from './books.ts';
import type { Row } from './books.ts';
import type { Chance } from './chance.ts';
import { WaitedInVain } from '../support/until.ts';
import { until } from './house.ts';
import type { House } from './house.ts';
import { changeOpen, idsOf, limitTight } from './household.ts';
import type { Household, Resident } from './household.ts';
import { makeCalls, planCalls, repeatCut, scriptFaults } from './load.ts';
import type { LoadPlan, Seen } from './load.ts';
import { NOTHING } from './points.ts';
import type { Grip, KillPoint } from './points.ts';
import { acknowledged, listed, overspent, resolveUnknown, stillOpen } from './promises.ts';
import { witnessesOf } from './witness.ts';
import type { Witness } from './witness.ts';

export interface RoundOrder {
  number: number;
  point: KillPoint;
  chance: Chance;
  household: Household;
  /** What the stand-in saw of this household in earlier rounds. */
  earlier: readonly Witness[];
  stopped: AbortSignal;
}

/** What a round did, and what was wrong afterwards. */
/** Stands behind the name of a point whose moment did not come. */
export const MISSED = ', missed';

export interface RoundResult {
  number: number;
  point: string;
  /** The limit that the tight merchant had. */
  limit: string;
  seen: Seen[];
  /** What came to AWS in this round. */
  witnesses: Witness[];
  brokenOff: number;
  /** Rows that nobody could tell the outcome of, before the reconciler. */
  unknown: number;
  resolved: number;
  faults: string[];
}

const BASE_PLAN = { calls: 36, spreadMs: 550, tightShare: 0.35, pace: { eventDelayMs: 3, delayMs: 4 } };
/** Of them are made before the others, so that death does not always meet a service that has only just begun. */
const FIRST_CALLS = 4;
const SWEEP_CALLS = 1_000;
/** Beyond the attempts to settle, and the time a left caller's call is read on. Milliseconds. */
const LEAVE_MS = 20_000;

/** One death: load, kill, successor, sweep, checks, reconciler, checks. @throws Error when something hangs */
export async function runRound(house: House, order: RoundOrder): Promise<RoundResult> {
  const { point, chance, household, stopped } = order;
  const merchants = idsOf(household);
  const day = new Date().getUTCDate();
  const allowance = await limitTight(house, household, chance);
  const plan: LoadPlan = { ...BASE_PLAN, ...point.plan, round: order.number };
  const intents = planCalls(plan, household, chance);
  const [first, rest] = [intents.slice(0, FIRST_CALLS), intents.slice(FIRST_CALLS)];
  const begun = await makeCalls(
    house.service.url,
    first.map((intent) => ({ ...intent, startsAtMs: 0, leavesAfterMs: undefined })),
    stopped,
  );
  const endFaults = scriptFaults(house.standIn, plan, chance);
  const load = makeCalls(house.service.url, rest, stopped);
  let over = false;
  void load.then(() => (over = true));
  const change = changeUnderLoad(house, order);
  try {
    const grip = await point.reach({ house, chance, merchants, isOver: () => over }).catch(missed);
    await kill(house, point, { grip: grip ?? NOTHING, chance, load });
    const cut = await load;
    endFaults();
    const again = await repeatCut(house.service.url, rest, cut, stopped);
    await settleDown(house, merchants);
    const seen = [...begun, ...cut, ...again];
    const { witnesses, brokenOff } = witnessesOf(house.standIn.journal);
    house.standIn.forget();
    const books = { house, household, witnesses: [...order.earlier, ...witnesses] };
    const rows = await readRows(house.admin, merchants);
    const faults = [
      ...(await audited(books, rows)),
      ...acknowledged(rows, seen),
      ...(await changed(house, await change)),
      ...(day === new Date().getUTCDate() ? overspent(allowance, household.tight, witnesses) : []),
    ];
    const reconciled = await reconcile(books, rows);
    faults.push(...reconciled.faults);
    const { number } = order;
    const { unknown, resolved } = reconciled;
    return {
      number,
      point: grip === undefined ? `${point.name}${MISSED}` : point.name,
      limit: allowance.name,
      seen,
      witnesses,
      brokenOff,
      unknown,
      resolved,
      faults,
    };
  } finally {
    // Whatever went wrong: nothing of this round runs on into the next.
    house.gate.open('lose');
    await Promise.allSettled([load, change]);
  }
}

/** A slow machine may have no call left for the moment: then the death comes when it comes, and the table says so. */
function missed(error: unknown): undefined {
  if (!(error instanceof WaitedInVain)) throw error;
}

/** In half of the rounds the operator changes the other merchant meanwhile. @returns the request id of a change that was acknowledged */
async function changeUnderLoad(house: House, { chance, household }: RoundOrder): Promise<string | undefined> {
  const [meant, afterMs] = [chance.happens(0.5), chance.between(0, 400)];
  if (!meant) return undefined;
  await sleep(afterMs);
  return changeOpen(house, household, chance).catch(() => undefined);
}

interface Killing {
  grip: Grip;
  chance: Chance;
  load: Promise<Seen[]>;
}

async function kill(house: House, { victim }: KillPoint, killing: Killing): Promise<void> {
  if (victim === 'service') await killService(house, killing.grip);
  else await killPostgres(house, killing, victim === 'both');
}

/** SIGKILL, and a successor. What the dead one held is taken over by the sweeper once its lease has ended. */
async function killService(house: House, { onDeath, onTakeOver }: Grip): Promise<void> {
  await house.service.end('SIGKILL');
  const remains = await house.remains();
  await onDeath(remains);
  await house.startService();
  await endLeases(house, remains.processes);
  await house.newLedgerStore().sweep(SWEEP_CALLS);
  await onTakeOver();
  await house.sessionsOver(remains.sessions);
}

async function killPostgres(
  house: House,
  { grip, chance, load }: Killing,
  serviceToo: boolean,
): Promise<void> {
  if (house.cluster === undefined) throw new Error('this Postgres cannot be killed');
  await house.cluster.crash();
  // Both the first attempts to settle and the later, rarer ones.
  await sleep(chance.between(serviceToo ? 150 : 0, 1_500));
  if (serviceToo) await house.service.end('SIGKILL');
  await house.restartPostgres();
  await grip.onDeath({ processes: [], sessions: [] });
  if (!serviceToo) {
    await goesOn(house);
    await load;
    await leaves(house);
  }
  const { processes } = await house.remains();
  await house.startService();
  await endLeases(house, processes);
}

/** The service that lost its database finds it again by itself. */
async function goesOn(house: House): Promise<void> {
  const anyone = new Person(house.service.url);
  await until('the service is ready again', async () => (await anyone.get('/readyz')).status === 200);
}

/** Leaves in order, which it may only when all it could settle is settled. @throws Error when it does not, or not with code 0 */
async function leaves(house: House): Promise<void> {
  const ended = house.service.end('SIGTERM');
  const end = await Promise.race([ended, sleep(LEAVE_MS, undefined, { ref: false })]);
  if (end?.code !== 0) throw new Error(`the service did not leave in order: ${JSON.stringify(end)}`);
}

/** What waiting for twenty seconds would do. */
async function endLeases(house: House, processes: readonly string[]): Promise<void> {
  await house.admin.query(
    `UPDATE processes SET lease_until = clock_timestamp() - interval '1 second' WHERE id = ANY ($1)`,
    [processes],
  );
}

/** Nothing is under way at AWS, and the sweeper has found everything. */
async function settleDown(house: House, merchants: readonly string[]): Promise<void> {
  await until('AWS is done', () => house.standIn.journal.every(({ outcome }) => outcome !== 'open'));
  const ledger = house.newLedgerStore();
  await until('no call is held any more', async () => {
    await ledger.sweep(SWEEP_CALLS);
    return (await house.heldRows(merchants)) === 0;
  });
}

interface Books {
  house: House;
  household: Household;
  /** Of all rounds of the household. */
  witnesses: readonly Witness[];
}

/** Everything that must hold at any time. */
async function audited({ house, household, witnesses }: Books, rows: readonly Row[]): Promise<string[]> {
  const merchants = idsOf(household);
  return [
    ...compare(rows, witnesses, [household.open, household.tight]),
    ...compareAudit(rows),
    ...(await differences(house.admin, merchants)),
    ...(await chains(house.audit, merchants)),
    ...(await limitsPassed(house.admin, merchants)),
  ];
}

/** A change that an operator was told of is on record. */
async function changed(house: House, change: string | undefined): Promise<string[]> {
  if (change === undefined) return [];
  const { rowCount } = await house.admin.query(
    `SELECT 1 FROM audit_events WHERE action = 'merchant.updated' AND request_id = $1`,
    [change],
  );
  return rowCount === 1 ? [] : [`change ${change} was acknowledged and is not on record`];
}

/** Rows that are unknown are shown to their merchant and then resolved. All checks hold again after it. */
async function reconcile(
  books: Books,
  before: readonly Row[],
): Promise<{ unknown: number; resolved: number; faults: string[] }> {
  const { house, household, witnesses } = books;
  const shown = [
    ...(await shownUnknown(house, household.open)),
    ...(await shownUnknown(house, household.tight)),
  ];
  const ledger = house.newLedgerStore();
  const { faults, ...counted } = await resolveUnknown(before, witnesses, ({ merchantId, id }, outcome) =>
    ledger.settle(merchantId as MerchantId, id as CallId, outcome),
  );
  const after = await readRows(house.admin, idsOf(household));
  return {
    ...counted,
    faults: [...listed(before, shown), ...faults, ...(await audited(books, after)), ...stillOpen(after)],
  };
}

async function shownUnknown(house: House, { id, token }: Resident): Promise<string[]> {
  const merchant = new Person(house.service.url, token);
  const found: string[] = [];
  for (let cursor = ''; ;) {
    const { status, json } = await merchant.get(
      `/api/merchants/${id}/bedrock/usage/records?limit=100${cursor}`,
    );
    if (status !== 200) throw new Error(`GET /usage/records was answered ${String(status)}`);
    const { items, nextCursor } = json as { items: { id: string; state: string }[]; nextCursor?: string };
    found.push(...items.filter(({ state }) => state === 'unknown').map((record) => record.id));
    if (nextCursor === undefined) return found;
    cursor = `&cursor=${nextCursor}`;
  }
}
