import { z } from 'zod';
import { MERCHANT_SCOPES } from '../../../domain/principal.ts';
import { ServiceError } from '../../../domain/errors.ts';
import type { MerchantPrincipal } from '../../../domain/principal.ts';
import { name } from '../../schemas.ts';

export const newApiKey = z.strictObject({
  name,
  scopes: z
    .array(z.enum(MERCHANT_SCOPES, `must be some of ${MERCHANT_SCOPES.join(', ')}`))
    .min(1)
    .default([...MERCHANT_SCOPES]),
  expiresInDays: z.int().min(1).max(365).default(90),
});

/** @throws ServiceError auth.insufficient_scope when the caller lacks one of the scopes that a new token would have. */
export function assertMayHandOn(principal: MerchantPrincipal, scopes: readonly string[]): void {
  const missing = scopes.filter((scope) => !(principal.scopes as readonly string[]).includes(scope));
  if (missing.length === 0) return;
  throw new ServiceError(
    'auth.insufficient_scope',
    `A token can only hand on scopes it has itself. Missing: ${missing.join(', ')}.`,
    { extra: { scope: missing.join(' ') } },
  );
}

export const apiKeyReply = z.object({
  id: z.string(),
  name: z.string(),
  environment: z.enum(['live', 'test']),
  scopes: z.array(z.string()),
  createdBy: z.string(),
  createdAt: z.string(),
  expiresAt: z.string(),
  revokedAt: z.string().nullable(),
  rolledTo: z.string().nullable(),
});
