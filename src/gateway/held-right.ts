import { refusalOf } from '../ledger/refusals.ts';
import type { EndedBy, Right } from '../ledger/rights-store.ts';

/** The part of RightsStore that is asked here. */
export interface Rights {
  ended: (rights: readonly Right[]) => Promise<ReadonlyMap<number, EndedBy<Right>>>;
}

/** @throws ServiceError as the admission of a call with this right; ledger.unavailable when nobody can say. Cost: one statement. */
export async function assertHeld(rights: Rights, right: Right): Promise<void> {
  const verdict = (await rights.ended([right])).get(0);
  if (verdict !== undefined) throw refusalOf({ verdict });
}
