import type { ServiceError } from '../domain/errors.ts';
import type { Principal } from '../domain/principal.ts';
import type { Held } from '../ledger/rights-store.ts';
import type { MerchantContext, OperatorContext } from './context.ts';
import { cutResponse } from './protocol.ts';

type LongAnswer = Pick<MerchantContext | OperatorContext, 'res' | 'services' | 'principal' | 'event'>;

/**
 * Gives an answer that is long in coming while the right of who asked for it holds. When it ends (key revoked or expired, JWT run out, merchant
 * suspended or closed), nothing more is written, whether the reader is slow or a page is being read: the answer is cut off, as one that failed.
 * @param work writes the answer; calls `assertHeld` before its first byte, so that what ended by then is still refused in words.
 * @throws ServiceError call.revoked; what `work` throws.
 */
export async function whileAllowed(
  { res, services, principal, event }: LongAnswer,
  work: (assertHeld: () => void) => Promise<void>,
): Promise<void> {
  let ended: ServiceError | undefined;
  const assertHeld = (): void => {
    if (ended !== undefined) throw ended;
  };
  using _watched = services.watch.begin({
    ...heldBy(principal),
    cut: (why) => {
      ended = why;
      event['code'] = why.code;
      if (res.headersSent) cutResponse(res);
    },
  });
  await work(assertHeld);
  assertHeld();
}

function heldBy(principal: Principal): { right: Held; expiresAtMs?: number | undefined } {
  if (principal.kind === 'operator') return { right: { operatorKeyId: principal.keyId } };
  const { merchantId, apiKeyId, expiresAtMs } = principal;
  return { right: { merchantId, apiKeyId }, expiresAtMs };
}
