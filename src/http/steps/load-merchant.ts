import { merchantNotFound } from '../../auth/permissions.ts';
import { nothingDone, ServiceError } from '../../domain/errors.ts';
import { parseMerchantId } from '../../domain/ids.ts';
import type { MerchantId } from '../../domain/ids.ts';
import type { Merchant } from '../../domain/merchant.ts';
import type { Merchants } from '../../merchants/merchants.ts';

/** The merchant id of a path, or the same 404 as for one that does not exist. */
export function merchantIdOf(text: string): MerchantId {
  const merchantId = parseMerchantId(text);
  if (merchantId === undefined) throw merchantNotFound();
  return merchantId;
}

/** Loads the merchant of the path, whose id was compared with the token's before. */
export async function loadMerchant(
  merchants: Merchants,
  merchantId: MerchantId,
  { remembered }: { remembered: boolean },
): Promise<Merchant> {
  const loading = remembered ? merchants.remembered(merchantId) : merchants.find(merchantId);
  const merchant = await loading.catch((error: unknown) => {
    throw nothingDone(error);
  });
  if (merchant === undefined) throw merchantNotFound();
  if (merchant.status !== 'active')
    throw new ServiceError(
      'merchant.not_active',
      `This merchant is ${merchant.status}. An operator can say why.`,
    );
  return merchant;
}
