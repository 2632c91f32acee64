import { z } from 'zod';
import { SYSTEM_CHAIN } from '../../../domain/audit.ts';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import { operatorEndpoint } from '../../route.ts';
import { auditEvent, auditQuery } from '../audit/list.ts';
import { page } from '../../schemas.ts';

const query = auditQuery.extend({
  merchantId: z.string().regex(MERCHANT_ID_PATTERN, 'must be the id of a merchant').optional(),
});

export const opsAudit = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary: 'The audit trail of the operators, or of the merchant that merchantId names, newest first',
  query,
  reply: { status: 200, description: 'A page of events', schema: page(auditEvent) },
  handle: async ({ services, query: { limit, cursor, merchantId } }) => {
    const chain = (merchantId ?? SYSTEM_CHAIN) as MerchantId;
    return {
      status: 200,
      body: await services.audit.list(chain, limit, cursor === undefined ? undefined : BigInt(cursor)),
    };
  },
});
