import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { credentialIdOf, credentialReply, toCredentialReply } from './schema.ts';

const body = z.strictObject({
  isDefault: z.literal(true, 'must be true: to change the default, make another credential the default'),
});

export const updateCredential = merchantEndpoint<z.infer<typeof body>>({
  summary: 'Make a credential the default: it is used where a request names none',
  body,
  reply: { status: 200, description: 'The credential', schema: credentialReply },
  handle: async ({ services, actor, merchant, params }) => {
    const stored = await services.credentials.makeDefault(actor, merchant.id, credentialIdOf(params['cid']));
    return { status: 200, body: toCredentialReply(stored) };
  },
});
