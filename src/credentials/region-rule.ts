import { ServiceError } from '../domain/errors.ts';
import type { Merchant } from '../domain/merchant.ts';

/**
 * Lets a region through when this deployment has enabled it and, if the merchant is limited to some, it is among them.
 * @throws ServiceError region.not_allowed, naming the regions that are.
 */
export function regionFor(
  wanted: string,
  enabled: readonly string[],
  merchant: Pick<Merchant, 'regions'>,
): string {
  const allowed =
    merchant.regions.length === 0 ? enabled : enabled.filter((region) => merchant.regions.includes(region));
  if (allowed.includes(wanted)) return wanted;
  throw new ServiceError(
    'region.not_allowed',
    allowed.length === 0
      ? 'No region is open to this merchant. Ask the operator to enable one.'
      : `This region is not open to this merchant. Use one of: ${allowed.join(', ')}.`,
  );
}
