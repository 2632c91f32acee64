import { merchantEndpoint } from '../../route.ts';
import { credentialIdOf } from './schema.ts';

export const deleteCredential = merchantEndpoint({
  summary:
    'Delete a credential. Its data key is destroyed at once: what remains in Secrets Manager cannot be opened',
  reply: { status: 204, description: 'Deleted: no call can start with it any more' },
  handle: async ({ services, actor, merchant, params }) => {
    await services.credentials.delete(actor, merchant.id, credentialIdOf(params['cid']));
    return { status: 204 };
  },
});
