import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';

export const verification = {
  differences: z.array(
    z.object({
      what: z.enum(['counter', 'usage', 'cost']),
      key: z.string(),
      kept: z.unknown(),
      counted: z.unknown(),
    }),
  ),
  checked: z.object({
    at: z.string(),
    calls: z.int(),
    counters: z.int(),
    sums: z.int(),
    differences: z.int(),
  }),
};

export const usageVerify = merchantEndpoint({
  summary: 'Recomputes every counter, every sum and every cost from the ledger’s rows and compares',
  reply: {
    status: 200,
    description: 'What differs (nothing, always; at most 100 are shown), and how much was checked',
    schema: z.object(verification),
  },
  handle: async ({ services, merchant }) => ({
    status: 200,
    body: await services.usageVerify.verify(merchant.id),
  }),
});
