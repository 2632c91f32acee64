import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import { operatorEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';

const query = z.strictObject({
  limit,
  cursor: z.string().regex(MERCHANT_ID_PATTERN, 'is not one that this route gave out').optional(),
});

export const opsUnknown = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary: 'Calls whose end nobody knows yet, by merchant: how many, since when, and what they hold',
  query,
  reply: {
    status: 200,
    description: 'A page of merchants that have unknown calls, by id',
    schema: page(
      z.object({
        merchantId: z.string(),
        calls: z.int(),
        oldest: z.string(),
        holdTokens: z.int(),
        holdNanoUsd: z.int(),
      }),
    ),
  },
  handle: async ({ services, query: { limit: size, cursor } }) => ({
    status: 200,
    body: await services.unknown.byMerchant(size, cursor),
  }),
});
