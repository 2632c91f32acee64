import { z } from 'zod';
import { formatDollars, PRICE_KINDS, PROFILES, TIERS } from '../../../ledger/price.ts';
import type { BookedPrice } from '../../../ledger/price.ts';
import { operatorEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';

const query = z.strictObject({
  modelId: z
    .string()
    .regex(/^[\w.:-]{1,200}$/, 'must be the id of a foundation model, without the prefix of a profile')
    .optional(),
  limit,
  cursor: z
    .string()
    .regex(/^[1-9]\d{0,17}$/, 'is not one that this route gave out')
    .optional(),
});

const dollars = z.string().describe('US dollars for a million units, as a decimal');

export const opsPrices = operatorEndpoint<undefined, z.infer<typeof query>>({
  summary: 'The price book: every price that was not withdrawn, past and future ones too, by model',
  query,
  reply: {
    status: 200,
    description: 'A page of prices',
    schema: page(
      z.object({
        id: z.string(),
        modelId: z.string(),
        region: z.string(),
        profile: z.enum(PROFILES),
        tier: z.enum(TIERS),
        validFrom: z.string(),
        revision: z.int(),
        usdPerMillion: z.partialRecord(z.enum(PRICE_KINDS), dollars),
        contextTokens: z.int().nullable(),
        maxOutputTokens: z.int().nullable(),
        source: z.string(),
        sourceDate: z.string(),
        importedBy: z.string(),
        importedAt: z.string(),
      }),
    ),
  },
  handle: async ({ services, query: { modelId, limit: size, cursor } }) => {
    const after = cursor === undefined ? undefined : BigInt(cursor);
    const { items, ...next } = await services.priceStore.list({ modelId, limit: size, after });
    return { status: 200, body: { items: items.map(shown), ...next } };
  },
});

function shown({
  id,
  validFromMs,
  nanoUsdPerMillion,
  contextTokens,
  maxOutputTokens,
  ...price
}: BookedPrice) {
  const kinds = Object.entries(nanoUsdPerMillion);
  return {
    ...price,
    id: id.toString(),
    validFrom: new Date(validFromMs).toISOString(),
    usdPerMillion: Object.fromEntries(kinds.map(([kind, nano]) => [kind, formatDollars(nano)])),
    contextTokens: contextTokens ?? null,
    maxOutputTokens: maxOutputTokens ?? null,
  };
}
