import { z } from 'zod';
import { API_KEY_ID_PATTERN } from '../../../domain/ids.ts';
import { namedLimitsSchema } from '../../../domain/limits.ts';
import type { NamedLimit } from '../../../ledger/limit-store.ts';
import { merchantEndpoint } from '../../route.ts';
import { merchantLimits } from './schema.ts';

/** `each` holds for every one that is not named in `byId`. */
const named = (id: z.ZodString) =>
  z
    .strictObject({ each: namedLimitsSchema.optional(), byId: z.record(id, namedLimitsSchema).default({}) })
    .refine(({ byId }) => Object.keys(byId).length <= 1_000, 'has more than 1000 entries')
    .default({ byId: {} });

const body = z.strictObject({
  apiKeys: named(z.string().regex(API_KEY_ID_PATTERN, 'must be the id of an API key')),
  endUsers: named(z.string().min(1).max(128)),
});
type Body = z.output<typeof body>;

export const putLimits = merchantEndpoint<Body>({
  summary:
    "Replace the limits that the merchant sets for its own API keys and end users. The merchant's own limits are its plan's, which operators set",
  body,
  reply: { status: 200, description: 'The limits that are now in force', schema: merchantLimits },
  handle: async ({ services, merchant, actor, body: { apiKeys, endUsers } }) => {
    await services.limitStore.replaceNamed(actor, merchant.id, [
      ...rowsOf('api-key', apiKeys),
      ...rowsOf('end-user', endUsers),
    ]);
    return { status: 200, body: await services.limitStore.inForce(merchant.id) };
  },
});

function rowsOf(scope: NamedLimit['scope'], { each, byId }: Body['apiKeys']): NamedLimit[] {
  return [
    ...(each === undefined ? [] : [{ scope, scopeId: '', spec: each }]),
    ...Object.entries(byId).map(([scopeId, spec]) => ({ scope, scopeId, spec })),
  ];
}
