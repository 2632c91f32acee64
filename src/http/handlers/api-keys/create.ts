import { z } from 'zod';
import { ServiceError } from '../../../domain/errors.ts';
import { merchantEndpoint } from '../../route.ts';
import { newApiKey } from './schema.ts';

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
    const missing = body.scopes.filter((scope) => !principal.scopes.includes(scope));
    if (missing.length > 0) {
      throw new ServiceError(
        'auth.insufficient_scope',
        `A token can only hand on scopes it has itself. Leave out: ${missing.join(', ')}.`,
        { extra: { scope: missing.join(' ') } },
      );
    }
    return { status: 201, body: await services.apiKeys.create(actor, merchant.id, body) };
  },
});
