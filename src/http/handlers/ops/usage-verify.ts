import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import type { Verification } from '../../../ledger/usage-verify-store.ts';
import { operatorEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';
import { verification } from '../usage/verify.ts';

const query = z.strictObject({
  limit,
  cursor: z.string().regex(MERCHANT_ID_PATTERN, 'is not one that this route gave out').optional(),
});

/** After this a page ends early, with a cursor. Milliseconds. */
const PAGE_MS = 10_000;

export const opsUsageVerify = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary: 'Verifies the ledgers of all merchants, page by page: counters, sums and costs against the rows',
  query,
  reply: {
    status: 200,
    description:
      'One verification for each merchant, by id. A page may be short: go on while there is a nextCursor',
    schema: page(z.object({ merchantId: z.string(), ...verification })),
  },
  handle: async ({ services, query: { limit: size, cursor } }) => {
    const merchants = await services.merchantStore.list(size, cursor ?? '');
    const startedAt = performance.now();
    const items: ({ merchantId: MerchantId } & Verification)[] = [];
    for (const { id } of merchants.items) {
      if (items.length > 0 && performance.now() - startedAt > PAGE_MS) break;
      items.push({ merchantId: id, ...(await services.usageVerify.verify(id)) });
    }
    const nextCursor =
      items.length < merchants.items.length ? items.at(-1)?.merchantId : merchants.nextCursor;
    return { status: 200, body: { items, ...(nextCursor !== undefined && { nextCursor }) } };
  },
});
