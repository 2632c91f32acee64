import { z } from 'zod';
import { MERCHANT_SCOPES } from '../../../domain/principal.ts';
import { name } from '../../schemas.ts';

export const newApiKey = z.strictObject({
  name,
  scopes: z
    .array(z.enum(MERCHANT_SCOPES, `must be some of ${MERCHANT_SCOPES.join(', ')}`))
    .min(1)
    .default([...MERCHANT_SCOPES]),
  expiresInDays: z.int().min(1).max(365).default(90),
});

export const apiKeyReply = z.object({
  id: z.string(),
  name: z.string(),
  environment: z.enum(['live', 'test']),
  scopes: z.array(z.string()),
  createdBy: z.string(),
  createdAt: z.string(),
  expiresAt: z.string(),
  revokedAt: z.string().nullable(),
});
