import type { LedgerStore } from './ledger-store.ts';

const BATCH = 200;

/**
 * Turns calls whose deadline passed into unknown, e.g. those of a process that was killed. Safe with any number of replicas: of two that
 * try the same row one wins. Unknown is not a refund: AWS may have run the call.
 * @returns how many rows this run found.
 */
export async function sweepOverdueCalls(store: LedgerStore): Promise<number> {
  const overdue = await store.overdue(BATCH);
  for (const call of overdue) {
    await store.resolve(call.merchant_id, call.id, {
      state: 'unknown',
      reason: 'deadline passed without an outcome',
      upstream: {},
    });
  }
  return overdue.length;
}
