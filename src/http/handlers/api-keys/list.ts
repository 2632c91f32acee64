import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { apiKeyReply } from './schema.ts';

export const listApiKeys = merchantEndpoint({
  summary: "The merchant's API keys, revoked and expired ones included",
  reply: {
    status: 200,
    description: 'All of them, without secrets',
    schema: z.object({ items: z.array(apiKeyReply) }),
  },
  handle: async ({ services, merchant }) => ({
    status: 200,
    body: { items: await services.apiKeyStore.list(merchant.id) },
  }),
});
