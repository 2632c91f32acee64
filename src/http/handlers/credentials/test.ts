import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { credentialIdOf, credentialReply, toCredentialReply } from './schema.ts';

export const testCredential = merchantEndpoint({
  summary:
    'Ask AWS whether a stored credential still works and is of the account it was stored for. Costs nothing',
  reply: {
    status: 200,
    description: 'It works. An error says why not and what to do; either way the outcome is recorded',
    schema: z.object({
      ok: z.literal(true),
      identity: z.object({ accountId: z.string().nullable(), arn: z.string().nullable() }),
      credential: credentialReply,
    }),
  },
  handle: async ({ services, actor, merchant, params }) => {
    const { credential, identity } = await services.credentials.test(
      actor,
      merchant.id,
      credentialIdOf(params['cid']),
    );
    const { accountId = null, arn = null } = identity;
    return {
      status: 200,
      body: { ok: true, identity: { accountId, arn }, credential: toCredentialReply(credential) },
    };
  },
});
