import { parseMerchantId } from '../domain/ids.ts';
import { MERCHANT_SCOPES } from '../domain/principal.ts';
import type { MerchantPrincipal } from '../domain/principal.ts';

const PATTERN = /^dev_([A-Za-z0-9_-]{1,64}):([a-z0-9-]{2,63})$/;

/** `dev_<user>:<merchant>`: no secret at all. The configuration refuses it in production. */
export function parseDevToken(text: string): MerchantPrincipal | undefined {
  const [, user, merchant = ''] = PATTERN.exec(text) ?? [];
  const merchantId = parseMerchantId(merchant);
  if (user === undefined || merchantId === undefined) return undefined;
  return { kind: 'merchant', merchantId, subject: `dev:${user}`, scopes: MERCHANT_SCOPES };
}
