import { z } from 'zod';
import { namedLimitsSchema, planSpecSchema } from '../../../domain/limits.ts';

export const limitStates = z.array(
  z.object({
    name: z.string(),
    scope: z.string(),
    scopeId: z.string().nullable(),
    mode: z.string(),
    max: z.int(),
    used: z.int(),
    spent: z.int(),
    resetsAt: z.string().nullable(),
  }),
);

export const merchantLimits = z.object({
  plan: z.string(),
  spec: planSpecSchema,
  override: z.object({ spec: planSpecSchema, endsAt: z.string().nullable() }).nullable(),
  named: z.array(
    z.object({ scope: z.enum(['api-key', 'end-user']), scopeId: z.string(), spec: namedLimitsSchema }),
  ),
  limits: limitStates,
  hitsToday: z.array(z.object({ limit: z.string(), scope: z.string(), mode: z.string(), hits: z.int() })),
});
