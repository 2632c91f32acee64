import { z } from 'zod';
import { ALERT_KINDS } from '../../../domain/alerts.ts';
import { merchantEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';

const query = z.strictObject({
  limit,
  cursor: z.uuid('is not one that this route gave out').optional(),
});

export const listAlerts = merchantEndpoint<undefined, z.infer<typeof query>>({
  summary:
    'Limits that were nearly used up, are foreseen to be, or were passed: each once a period; and stored keys that are due to be exchanged. Newest first',
  query,
  reply: {
    status: 200,
    description: 'A page of alerts. Money in nano-USD; for a rotation, days.',
    schema: page(
      z.object({
        id: z.uuid(),
        kind: z.enum(ALERT_KINDS),
        scope: z.string(),
        scopeId: z.string().nullable(),
        limit: z.string(),
        periodStartsAt: z.string(),
        percent: z.int(),
        used: z.int(),
        max: z.int().nullable(),
        callId: z.uuid().nullable(),
        createdAt: z.string(),
      }),
    ),
  },
  handle: async ({ services, merchant, query: { limit: size, cursor } }) => ({
    status: 200,
    body: await services.webhooks.alerts(merchant.id, size, cursor),
  }),
});
