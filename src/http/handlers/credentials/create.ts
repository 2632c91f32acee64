import { merchantEndpoint } from '../../route.ts';
import { credentialReply, materialOf, newCredential, roleKit, toCredentialReply } from './schema.ts';
import type { NewCredential } from './schema.ts';

export const createCredential = merchantEndpoint<NewCredential>({
  summary:
    'Store a credential. AWS is asked whose it is first; its account is pinned. The secret never comes back. An assume-role credential is pending until its role is activated',
  body: newCredential,
  reply: {
    status: 201,
    description:
      'The stored credential, without its secret. Of assume-role also `role`: how to make the role',
    schema: credentialReply.extend({ role: roleKit.optional() }),
  },
  handle: async ({ services, actor, merchant, body }) => {
    const { name, region } = body;
    const makeDefault = body.kind !== 'assume-role' && body.makeDefault === true;
    if (body.kind === 'assume-role') await services.roleKits.check(region, body.models);
    const input = { name, region, makeDefault, material: materialOf(body) };
    const stored = await services.credentials.store(actor, merchant.id, input);
    if (body.kind !== 'assume-role') return { status: 201, body: toCredentialReply(stored) };
    const role = await services.roleKits.of(merchant.id, stored, body.models);
    return { status: 201, body: { ...toCredentialReply(stored), role } };
  },
});
