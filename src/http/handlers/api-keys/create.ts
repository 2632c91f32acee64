import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { assertMayHandOn, newApiKey } from './schema.ts';

export const createApiKey = merchantEndpoint<z.output<typeof newApiKey>>({
  summary: 'Make an API key. It can do no more than the token that makes it',
  body: newApiKey,
  reply: {
    status: 201,
    description: 'The token is shown this one time',
    schema: z.object({
      id: z.string(),
      token: z.string(),
      name: z.string(),
      scopes: z.array(z.string()),
      expiresAt: z.string(),
    }),
  },
  handle: async ({ services, actor, principal, merchant, body }) => {
    assertMayHandOn(principal, body.scopes);
    return { status: 201, body: await services.apiKeys.create(actor, merchant.id, body) };
  },
});
