import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import { OPS_USAGE_GROUPS } from '../../../ledger/usage.ts';
import { operatorEndpoint } from '../../route.ts';
import { limit, page, usageSums } from '../../schemas.ts';
import { checkSpan, groupList, spanFields, spanOf } from '../usage/span.ts';

const query = z
  .strictObject({
    ...spanFields,
    groupBy: groupList(OPS_USAGE_GROUPS, ''),
    merchant: z.string().regex(MERCHANT_ID_PATTERN, 'must be the id of a merchant').optional(),
    limit,
    cursor: z
      .string()
      .max(4_096)
      .regex(/^[a-z0-9-]+\|[\x21-\x7b}~]*\|[0-9-]*$/, 'is not one that this route gave out')
      .optional(),
  })
  .check(checkSpan);

export const opsUsage = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary:
    'Who used what: calls, tokens and cost per merchant in the running day, week, month or year (UTC), or from..to; by model and by day where asked',
  query,
  reply: {
    status: 200,
    description: 'A page of merchants and their groups, by merchant id, model and day',
    schema: page(
      z.object({
        merchantId: z.string(),
        key: z.object({ model: z.string().optional(), day: z.string().optional() }),
        ...usageSums,
      }),
    ).extend({ from: z.string(), to: z.string() }),
  },
  handle: async ({ services, query: { groupBy, merchant, limit: size, cursor, ...span } }) => ({
    status: 200,
    body: await services.usage.byMerchant(spanOf(span), size, {
      groupBy,
      cursor,
      merchantId: merchant as MerchantId | undefined,
    }),
  }),
});
