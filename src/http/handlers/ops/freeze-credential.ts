import type { z } from 'zod';
import type { OperatorContext } from '../../context.ts';
import { operatorEndpoint } from '../../route.ts';
import type { Reply } from '../../route.ts';
import { merchantIdOf } from '../../steps/load-merchant.ts';
import { freezeBody } from '../credentials/freeze.ts';
import { credentialIdOf, credentialReply, toCredentialReply } from '../credentials/schema.ts';

type FreezeBody = z.output<typeof freezeBody>;

export const opsFreezeCredential = operatorEndpoint<FreezeBody>({
  summary: "Freeze a merchant's credential, also while the merchant is suspended",
  body: freezeBody,
  reply: {
    status: 200,
    description: 'The credential, frozen, also if it was before',
    schema: credentialReply,
  },
  handle: (context) => change(context, true),
});

export const opsThawCredential = operatorEndpoint<FreezeBody>({
  summary: "Thaw a merchant's frozen credential",
  body: freezeBody,
  reply: {
    status: 200,
    description: 'The credential, active, also if it was before',
    schema: credentialReply,
  },
  handle: (context) => change(context, false),
});

async function change(
  { services, actor, params, body }: OperatorContext<FreezeBody>,
  frozen: boolean,
): Promise<Reply> {
  const merchantId = merchantIdOf(params['id'] ?? '');
  const credentialId = credentialIdOf(params['cid']);
  const stored = await services.credentials.freeze(actor, merchantId, credentialId, { frozen, ...body });
  return { status: 200, body: toCredentialReply(stored) };
}
