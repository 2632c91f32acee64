import { z } from 'zod';
import { ENVIRONMENT_STEPS } from '../../../gateway/environment-test.ts';
import { merchantEndpoint } from '../../route.ts';

export const testEnvironment = merchantEndpoint({
  summary:
    "Whether this merchant's path works: configuration, database, vault, region, default credential, Bedrock. Costs nothing",
  reply: {
    status: 200,
    description: 'Each step, how long it took, and what to do where it failed',
    schema: z.object({
      ok: z.boolean(),
      steps: z.array(
        z.object({
          step: z.enum(ENVIRONMENT_STEPS),
          status: z.enum(['ok', 'failed', 'skipped']),
          durationMs: z.int(),
          detail: z.string(),
          code: z.string().optional(),
        }),
      ),
    }),
  },
  handle: async ({ services, actor, merchant, callerGone }) => {
    const steps = await services.environmentTest.run({ actor, merchant, callerGone });
    return { status: 200, body: { ok: steps.every(({ status }) => status === 'ok'), steps } };
  },
});
