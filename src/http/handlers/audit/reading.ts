import { merchantNotFound } from '../../../auth/permissions.ts';
import { SYSTEM_CHAIN } from '../../../domain/audit.ts';
import type { Actor, AuditEntry } from '../../../domain/audit.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import type { Services } from '../../services.ts';

/** The record of somebody reading an audit trail: one for each request, on the chain that is read, before anything of it is shown. */
export function readingOf(
  { subject, requestId }: Actor,
  chain: MerchantId,
  what: Record<string, string | number>,
): AuditEntry {
  return {
    actor: subject,
    action: 'audit.read',
    resource: `audit/${chain}`,
    outcome: 'allowed',
    requestId,
    body: what,
  };
}

/** The chain an operator asks for. Of no merchant there is no chain, and asking must not make one. @throws ServiceError merchant.not_found */
export async function chainOf(
  { merchants }: Pick<Services, 'merchants'>,
  merchantId: string | undefined,
): Promise<MerchantId> {
  if (merchantId === undefined) return SYSTEM_CHAIN as MerchantId;
  const merchant = await merchants.find(merchantId as MerchantId);
  if (merchant === undefined) throw merchantNotFound();
  return merchant.id;
}
