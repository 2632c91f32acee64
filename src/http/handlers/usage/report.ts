import { z } from 'zod';
import { TIMEFRAMES, USAGE_GROUPS } from '../../../ledger/usage.ts';
import { merchantEndpoint } from '../../route.ts';
import { usageSums } from '../../schemas.ts';
import { limitStates } from '../limits/schema.ts';
import { checkSpan, groupList, spanFields, spanOf } from './span.ts';

const query = z.strictObject({ ...spanFields, groupBy: groupList(USAGE_GROUPS, 'model') }).check(checkSpan);

export const usageReport = merchantEndpoint<undefined, z.infer<typeof query>>({
  summary:
    'Calls, tokens and cost of the running day, week, month or year (UTC), or of the days from..to (exclusive, at most 400), in groups',
  query,
  reply: {
    status: 200,
    description:
      'Sums over all and by group, the limits in force, and a forecast. Unknown calls are those whose outcome could not be observed; they are never counted as zero cost. Percentiles are off by less than half an octave.',
    schema: z.object({
      timeframe: z.enum(TIMEFRAMES).nullable(),
      from: z.string(),
      to: z.string(),
      ...usageSums,
      limits: limitStates,
      forecast: z
        .object({ until: z.string(), elapsed: z.number(), tokens: z.int(), costNanoUsd: z.int() })
        .nullable(),
      groups: z.array(z.object({ key: z.record(z.string(), z.string().nullable()), ...usageSums })),
    }),
  },
  handle: async ({ services, merchant, query: { groupBy, ...span } }) => {
    const { groups, ...whole } = await services.usage.report(merchant.id, spanOf(span), groupBy);
    const { limits } = await services.limitStore.inForce(merchant.id);
    return { status: 200, body: { ...whole, limits, groups } };
  },
});
