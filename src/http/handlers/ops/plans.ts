import { z } from 'zod';
import { PLAN_ID_PATTERN, planSpecSchema } from '../../../domain/limits.ts';
import { operatorEndpoint } from '../../route.ts';

const planId = z.string().regex(PLAN_ID_PATTERN, 'must be 1 to 63 characters of a-z, 0-9 and -');

export const listPlans = operatorEndpoint({
  summary: 'All plans in all versions, the latest of each first',
  reply: {
    status: 200,
    description: 'Plans',
    schema: z.object({
      items: z.array(
        z.object({
          id: z.string(),
          version: z.int(),
          spec: planSpecSchema,
          createdBy: z.string(),
          createdAt: z.string(),
        }),
      ),
    }),
  },
  handle: async ({ services }) => ({ status: 200, body: { items: await services.limitStore.plans() } }),
});

const body = z.strictObject({ id: planId, spec: planSpecSchema });

export const createPlan = operatorEndpoint<z.output<typeof body>>({
  summary: 'A plan, or a new version of one. Merchants stay on the version they are on',
  body,
  reply: {
    status: 201,
    description: 'The version that was made',
    schema: z.object({ id: z.string(), version: z.int() }),
  },
  handle: async ({ services, actor, body: { id, spec } }) => ({
    status: 201,
    body: { id, version: await services.limitStore.createPlan(actor, id, spec) },
  }),
});
