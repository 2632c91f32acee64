import { merchantEndpoint } from '../../route.ts';
import { merchantLimits } from './schema.ts';

export const getLimits = merchantEndpoint({
  summary: 'The limits in force, what is used of them, and when they reset. Money in nano-USD',
  reply: { status: 200, description: 'Plan, overrides, limits and their use', schema: merchantLimits },
  handle: async ({ services, merchant }) => ({
    status: 200,
    body: await services.limitStore.inForce(merchant.id),
  }),
});
