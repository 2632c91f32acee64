import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { reason } from '../../schemas.ts';
import { credentialIdOf, credentialReply, toCredentialReply } from './schema.ts';

/** Why goes into the audit trail. An empty object will do, and no body at all will not: nothing is frozen by a stray request. */
export const freezeBody = z.strictObject({ reason: reason.optional() });
type FreezeBody = z.output<typeof freezeBody>;

export const freezeCredential = merchantEndpoint<FreezeBody>({
  summary:
    'Freeze a credential: no call starts with it any more, on any replica, and its streams end. Thawing undoes it',
  body: freezeBody,
  reply: {
    status: 200,
    description: 'The credential, frozen, also if it was before',
    schema: credentialReply,
  },
  handle: async ({ services, actor, merchant, params, body }) => {
    const change = { frozen: true, ...body };
    const stored = await services.credentials.freeze(
      actor,
      merchant.id,
      credentialIdOf(params['cid']),
      change,
    );
    return { status: 200, body: toCredentialReply(stored) };
  },
});

export const thawCredential = merchantEndpoint<FreezeBody>({
  summary: 'Thaw a frozen credential: calls can use it again',
  body: freezeBody,
  reply: {
    status: 200,
    description: 'The credential, active, also if it was before',
    schema: credentialReply,
  },
  handle: async ({ services, actor, merchant, params, body }) => {
    const change = { frozen: false, ...body };
    const stored = await services.credentials.freeze(
      actor,
      merchant.id,
      credentialIdOf(params['cid']),
      change,
    );
    return { status: 200, body: toCredentialReply(stored) };
  },
});
