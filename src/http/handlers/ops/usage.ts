import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import { TIMEFRAMES } from '../../../ledger/usage.ts';
import { operatorEndpoint } from '../../route.ts';
import { limit, page, usageSums } from '../../schemas.ts';

const query = z.strictObject({
  timeframe: z.enum(TIMEFRAMES, `must be one of ${TIMEFRAMES.join(', ')}`).default('month'),
  limit,
  cursor: z.string().regex(MERCHANT_ID_PATTERN, 'is not one that this route gave out').optional(),
});

export const opsUsage = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary: 'Who used what: calls and tokens per merchant in the running day, week, month or year (UTC)',
  query,
  reply: {
    status: 200,
    description: 'A page of merchants, by id',
    schema: page(z.object({ merchantId: z.string(), ...usageSums })).extend({
      from: z.string(),
      to: z.string(),
    }),
  },
  handle: async ({ services, query: { timeframe, limit: size, cursor } }) => ({
    status: 200,
    body: await services.usage.byMerchant(timeframe, size, cursor),
  }),
});
