import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { credentialReply, toCredentialReply } from './schema.ts';

export const listCredentials = merchantEndpoint({
  summary: "The merchant's stored credentials",
  reply: {
    status: 200,
    description: 'All of them, without secrets',
    schema: z.object({ items: z.array(credentialReply) }),
  },
  handle: async ({ services, merchant }) => {
    const stored = await services.credentials.list(merchant.id);
    return { status: 200, body: { items: stored.map(toCredentialReply) } };
  },
});
