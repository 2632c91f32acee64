import { z } from 'zod';
import { TIMEFRAMES, USAGE_GROUPS } from '../../../ledger/usage.ts';
import { merchantEndpoint } from '../../route.ts';
import { usageSums } from '../../schemas.ts';

const groups = z
  .string()
  .default('model')
  .transform((text) => (text === '' ? [] : text.split(',')))
  .pipe(z.array(z.enum(USAGE_GROUPS, `must be some of ${USAGE_GROUPS.join(', ')}, separated by commas`)))
  .refine((list) => new Set(list).size === list.length, 'names a group twice');

const query = z.strictObject({
  timeframe: z.enum(TIMEFRAMES, `must be one of ${TIMEFRAMES.join(', ')}`).default('month'),
  groupBy: groups,
});

export const usageReport = merchantEndpoint<undefined, z.infer<typeof query>>({
  summary: 'Calls and tokens of the running day, week, month or year (UTC), in groups',
  query,
  reply: {
    status: 200,
    description:
      'Sums over all and by group. Unknown calls are those whose outcome could not be observed; they are never counted as zero cost.',
    schema: z.object({
      timeframe: z.enum(TIMEFRAMES),
      from: z.string(),
      to: z.string(),
      ...usageSums,
      groups: z.array(z.object({ key: z.record(z.string(), z.string().nullable()), ...usageSums })),
    }),
  },
  handle: async ({ services, merchant, query: { timeframe, groupBy } }) => ({
    status: 200,
    body: await services.usage.report(merchant.id, timeframe, groupBy),
  }),
});
