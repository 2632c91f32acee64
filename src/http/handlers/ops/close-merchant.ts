import { z } from 'zod';
import { ServiceError } from '../../../domain/errors.ts';
import { operatorEndpoint } from '../../route.ts';
import { reason } from '../../schemas.ts';
import { merchantIdOf } from '../../steps/load-merchant.ts';

const body = z.strictObject({
  /** The id of the merchant, once more: this cannot be undone. */
  merchantId: z.string(),
  reason: reason.optional(),
});

const count = z.int().optional();

export const closeMerchant = operatorEndpoint<z.output<typeof body>>({
  summary:
    'Close a merchant for good: keys revoked, data keys destroyed, webhooks and kept answers deleted. The body names the merchant again. Ledger and audit stay',
  body,
  reply: {
    status: 200,
    description: 'Closed, also if it was before (then nothing is counted)',
    schema: z.object({
      merchantId: z.string(),
      status: z.literal('closed'),
      closedNow: z.boolean(),
      ended: z.object({
        apiKeys: count,
        credentials: count,
        dataKeys: count,
        webhooks: count,
        answers: count,
      }),
    }),
  },
  handle: async ({ services, actor, params, body: { merchantId: confirmed, reason: why } }) => {
    const merchantId = merchantIdOf(params['id'] ?? '');
    if (confirmed !== merchantId)
      throw new ServiceError(
        'request.invalid',
        'Closing is for good, so the body must name the merchant of the path: {"merchantId": "<its id>"}. Nothing was done.',
        { problems: ['body.merchantId must be the id in the path'] },
      );
    const { closed: closedNow, counts: ended } = await services.closing.close(actor, merchantId, why);
    return { status: 200, body: { merchantId, status: 'closed', closedNow, ended } };
  },
});
