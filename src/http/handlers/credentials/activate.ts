import { z } from 'zod';
import { roleArn } from '../../../credentials/role.ts';
import { merchantEndpoint } from '../../route.ts';
import { credentialIdOf, credentialReply, toCredentialReply } from './schema.ts';

const body = z.strictObject({ roleArn, makeDefault: z.boolean().optional() });

export const activateCredential = merchantEndpoint<z.infer<typeof body>>({
  summary:
    'Prove a role and let it sign: AWS must give out a session for the ExternalId, and none without it or with a wrong one. Costs nothing; safe to repeat',
  body,
  reply: {
    status: 200,
    description: 'Active: role and account are pinned. An error says what to change in the trust policy',
    schema: credentialReply,
  },
  handle: async ({ services, actor, merchant, params, body: { roleArn: arn, makeDefault = false } }) => {
    const credentialId = credentialIdOf(params['cid']);
    const role = { roleArn: arn, makeDefault };
    const stored = await services.roles.activate(actor, merchant.id, credentialId, role);
    return { status: 200, body: toCredentialReply(stored) };
  },
});
