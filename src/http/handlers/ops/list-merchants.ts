import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import { operatorEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';

const query = z.strictObject({
  limit,
  cursor: z.string().regex(MERCHANT_ID_PATTERN, 'is not one that this route gave out').optional(),
});

export const listMerchants = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary: 'All merchants, by id',
  query,
  reply: {
    status: 200,
    description: 'A page of merchants',
    schema: page(
      z.object({
        id: z.string(),
        name: z.string(),
        status: z.string(),
        directAllowed: z.boolean(),
        serviceDefaultsAllowed: z.boolean(),
        regions: z.array(z.string()),
        createdAt: z.string(),
      }),
    ),
  },
  handle: async ({ services, query: { limit: size, cursor } }) => ({
    status: 200,
    body: await services.merchantStore.list(size, cursor),
  }),
});
