import { parseWebhookId } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';

export const deleteWebhook = merchantEndpoint({
  summary:
    'Delete a webhook and its deliveries. An attempt that is under way at this moment may still arrive',
  reply: { status: 204, description: 'Deleted' },
  handle: async ({ services, actor, merchant, params }) => {
    await services.webhooks.delete(actor, merchant.id, parseWebhookId(params['wid'] ?? ''));
    return { status: 204 };
  },
});
