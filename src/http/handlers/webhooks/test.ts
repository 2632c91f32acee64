import { z } from 'zod';
import { parseWebhookId } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';

export const testWebhook = merchantEndpoint({
  summary:
    'Send a test event (webhook.test) the way alerts are sent. GET …/deliveries tells what became of it',
  reply: {
    status: 202,
    description: 'It is in the outbox',
    schema: z.object({ deliveryId: z.uuid() }),
  },
  handle: async ({ services, actor, merchant, params }) => ({
    status: 202,
    body: {
      deliveryId: await services.webhooks.test(actor, merchant.id, parseWebhookId(params['wid'] ?? '')),
    },
  }),
});
