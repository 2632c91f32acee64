import { merchantEndpoint } from '../../route.ts';
import { credentialIdOf, credentialReply, toCredentialReply } from './schema.ts';

export const getCredential = merchantEndpoint({
  summary: 'One stored credential',
  reply: { status: 200, description: 'The credential, without its secret', schema: credentialReply },
  handle: async ({ services, merchant, params }) => {
    const stored = await services.credentials.get(merchant.id, credentialIdOf(params['cid']));
    return { status: 200, body: toCredentialReply(stored) };
  },
});
