import { z } from 'zod';
import { parseWebhookId } from '../../../domain/ids.ts';
import { DELIVERY_STATES } from '../../../ledger/webhook-delivery.ts';
import { merchantEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';

const query = z.strictObject({
  limit,
  cursor: z.uuid('is not one that this route gave out').optional(),
  state: z.enum(DELIVERY_STATES, `must be one of ${DELIVERY_STATES.join(', ')}`).optional(),
});

export const listDeliveries = merchantEndpoint<undefined, z.infer<typeof query>>({
  summary: 'What was sent to a webhook in the last 30 days, newest first. state=dead: what was given up',
  query,
  reply: {
    status: 200,
    description: 'A page of deliveries. id is what the receiver sees as webhook-id.',
    schema: page(
      z.object({
        id: z.uuid(),
        alertId: z.uuid().nullable(),
        event: z.string(),
        state: z.enum(DELIVERY_STATES),
        attempts: z.int(),
        nextAt: z.string().nullable(),
        lastStatus: z.int().nullable(),
        lastError: z.string().nullable(),
        deliveredAt: z.string().nullable(),
      }),
    ),
  },
  handle: async ({ services, merchant, params, query: { limit: size, cursor, state } }) => ({
    status: 200,
    body: await services.webhooks.deliveries(merchant.id, parseWebhookId(params['wid'] ?? ''), {
      size,
      cursor,
      state,
    }),
  }),
});
