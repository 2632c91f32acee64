import { NO_TOKENS } from '../../src/domain/usage.ts';
import type { CallOutcome, TokenCounts } from '../../src/domain/usage.ts';
import type { Row } from './books.ts';
import type { Allowance, Resident } from './household.ts';
import type { Seen } from './load.ts';
import type { Witness } from './witness.ts';

/** What a caller was told has a row, whoever died since. */
export function acknowledged(rows: readonly Row[], seen: readonly Seen[]): string[] {
  const ids = new Set(rows.map(({ id }) => id));
  return seen
    .filter(({ callId }) => callId !== undefined && !ids.has(callId))
    .map(({ tag, callId }) => `${tag} was answered as call ${callId ?? ''}, which has no row`);
}

/** No more than was allowed, by what AWS bills and not by our own counters. Money by the price of the model. */
export function overspent(
  allowance: Allowance,
  tight: Pick<Resident, 'id' | 'accountId'>,
  witnesses: readonly Witness[],
): string[] {
  const own = witnesses.filter(({ accountId }) => accountId === tight.accountId);
  const ran = own.filter(({ executed }) => executed).map(({ tokens = NO_TOKENS }) => tokens);
  const spent = {
    requests: own.length,
    tokens: sum(ran.map(({ input, output }) => input + output)),
    nanoUsd: sum(ran.map(priceOf)),
  };
  return (['requests', 'tokens', 'nanoUsd'] as const)
    .filter((name) => spent[name] > (allowance[name] ?? Infinity))
    .map(
      (name) => `${tight.id} may use ${String(allowance[name])} ${name}, used ${String(spent[name])} at AWS`,
    );
}

/** Every row whose outcome nobody knows is shown to its merchant, and no other is. */
export function listed(rows: readonly Row[], shown: readonly string[]): string[] {
  const unknown = rows.filter(({ state }) => state === 'unknown').map(({ id }) => id);
  if ([...unknown].sort().join() === [...shown].sort().join()) return [];
  return [`unknown are ${unknown.join()}, GET /usage/records shows ${shown.join()}`];
}

/**
 * Resolves unknown rows by the journal, as a reconciler would by AWS's invocation logs; each must move once, and not a second time.
 * @param settle the ledger's; whether the row moved.
 */
export async function resolveUnknown(
  rows: readonly Row[],
  witnesses: readonly Witness[],
  settle: (row: Row, outcome: CallOutcome) => Promise<boolean>,
): Promise<{ unknown: number; resolved: number; faults: string[] }> {
  const unknown = rows.filter(({ state }) => state === 'unknown');
  const byId = new Map(witnesses.map((witness) => [witness.callId, witness]));
  const faults: string[] = [];
  let resolved = 0;
  for (const row of unknown) {
    const outcome = outcomeBy(byId.get(row.id));
    if (await settle(row, outcome)) resolved += 1;
    else faults.push(`call ${row.id} is unknown and could not be resolved`);
    if (await settle(row, outcome)) faults.push(`call ${row.id} was resolved twice`);
  }
  return { unknown: unknown.length, resolved, faults };
}

function outcomeBy(witness: Witness | undefined): CallOutcome {
  if (witness?.tokens !== undefined && witness.executed)
    return { state: 'settled', usage: { tokens: witness.tokens, provenance: 'metrics' }, upstream: {} };
  return { state: 'void', reason: 'AWS has no record that it ran', upstream: {} };
}

/** Nobody is in doubt any more. */
export function stillOpen(rows: readonly Row[]): string[] {
  return rows
    .filter(({ state }) => state === 'unknown' || state === 'held')
    .map(({ id, state }) => `call ${id} is ${state} after the reconciler`);
}

function priceOf({ input, output }: TokenCounts): number {
  return Math.ceil(input * 800 + output * 4_000);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
