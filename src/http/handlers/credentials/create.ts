import { merchantEndpoint } from '../../route.ts';
import { credentialReply, materialOf, newCredential, toCredentialReply } from './schema.ts';
import type { NewCredential } from './schema.ts';

export const createCredential = merchantEndpoint<NewCredential>({
  summary:
    'Store a credential. AWS is asked whose it is first; its account is pinned. The secret never comes back',
  body: newCredential,
  reply: { status: 201, description: 'The stored credential, without its secret', schema: credentialReply },
  handle: async ({ services, actor, merchant, body }) => {
    const { name, region, makeDefault = false } = body;
    const input = { name, region, makeDefault, material: materialOf(body) };
    const stored = await services.vault.store(actor, merchant.id, input);
    return { status: 201, body: toCredentialReply(stored) };
  },
});
