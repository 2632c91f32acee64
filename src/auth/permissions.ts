import type { Clock } from '../domain/clock.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import { OPERATOR_SCOPES } from '../domain/principal.ts';
import type { Principal, Scope } from '../domain/principal.ts';

/** What a route asks for. `merchantId` is the one in the path; operators' routes have none. */
export interface Demand {
  permission: Scope;
  merchantId?: MerchantId;
}

/** The same words whether the merchant does not exist, is another's, or is no legal id: nobody learns who else is here. */
export function merchantNotFound(): ServiceError {
  return new ServiceError(
    'merchant.not_found',
    'There is no such merchant for this token. Check the id in the path, and which merchant the token was issued for.',
  );
}

/**
 * Lets a principal through, or says why not. The merchant is compared before the scope, so that a token learns nothing of another merchant.
 * @throws ServiceError merchant.not_found | auth.insufficient_scope
 */
export function authorize(principal: Principal, { permission, merchantId }: Demand): void {
  const forOperators = (OPERATOR_SCOPES as readonly Scope[]).includes(permission);
  if (!forOperators && (principal.kind !== 'merchant' || principal.merchantId !== merchantId))
    throw merchantNotFound();
  // An operator's scope in a merchant's token would be a mistake of whoever made the principal: it opens nothing.
  const ofTheRightKind = !forOperators || principal.kind === 'operator';
  if (ofTheRightKind && (principal.scopes as readonly Scope[]).includes(permission)) return;
  throw new ServiceError(
    'auth.insufficient_scope',
    `This token lacks the scope ${permission}. Use one that has it, or have one made with it.`,
    { extra: { scope: permission } },
  );
}

/**
 * Of what was verified before: a body may have been on the way since, or the call waited for its turn. Keys end in the database, and there it is
 * asked (prisma/migrations, actor_must_hold and ledger_hold); when a JWT ends, only it says.
 * @throws ServiceError auth.invalid_token
 */
export function assertUnexpired(principal: Principal | undefined, clock: Clock): void {
  if (principal?.kind !== 'merchant' || (principal.expiresAtMs ?? Infinity) > clock.now()) return;
  throw new ServiceError(
    'auth.invalid_token',
    'This token ran out before the request was done. Nothing was done; send a current one.',
  );
}
