import { parseWebhookId } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';

export const replayDelivery = merchantEndpoint({
  summary: 'Send a delivery that is over once more, under the same webhook-id, with all its attempts',
  reply: { status: 202, description: 'It is in the outbox again' },
  handle: async ({ services, actor, merchant, params }) => {
    await services.webhooks.replay(actor, merchant.id, {
      id: parseWebhookId(params['wid'] ?? ''),
      deliveryId: params['did'] ?? '',
    });
    return { status: 202 };
  },
});
