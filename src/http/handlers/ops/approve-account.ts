import { z } from 'zod';
import { notFound } from '../../../credentials/credential-state.ts';
import { credentialIdOf } from '../credentials/schema.ts';
import { operatorEndpoint } from '../../route.ts';
import { merchantIdOf } from '../../steps/load-merchant.ts';
import { reason } from '../../schemas.ts';

const body = z.strictObject({
  accountId: z.string().regex(/^\d{12}$/, 'must be the 12 digits of an AWS account'),
  reason,
});

export const approveAccount = operatorEndpoint<z.infer<typeof body>>({
  summary:
    'Let the next rotation of a credential move it to another AWS account: once, within a day. Without it such a rotation is refused',
  body,
  reply: { status: 204, description: 'Approved, and in the audit trail of the merchant' },
  handle: async ({ services, actor, params, body: approval }) => {
    const merchantId = merchantIdOf(params['id'] ?? '');
    const credentialId = credentialIdOf(params['cid']);
    if (await services.rotations.approveAccount(actor, merchantId, credentialId, approval))
      return { status: 204 };
    throw notFound();
  },
});
