import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';

export const listWebhooks = merchantEndpoint({
  summary: "The merchant's webhooks, without their secrets",
  reply: {
    status: 200,
    description: 'All of them; disabled ones answered 410',
    schema: z.object({
      items: z.array(
        z.object({
          id: z.string(),
          url: z.string(),
          events: z.array(z.string()),
          state: z.enum(['active', 'disabled']),
          createdAt: z.string(),
          createdBy: z.string(),
        }),
      ),
    }),
  },
  handle: async ({ services, merchant }) => ({
    status: 200,
    body: { items: await services.webhooks.list(merchant.id) },
  }),
});
