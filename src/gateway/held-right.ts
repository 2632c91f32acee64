import { refusalOf } from '../ledger/refusals.ts';
import type { Right, RightsStore } from '../ledger/rights-store.ts';

/** @throws ServiceError as the admission of a call with this right; ledger.unavailable when nobody can say. Cost: one statement. */
export async function assertHeld(rights: Pick<RightsStore, 'ended'>, right: Right): Promise<void> {
  const verdict = (await rights.ended([right])).get(0);
  if (verdict !== undefined) throw refusalOf({ verdict });
}
