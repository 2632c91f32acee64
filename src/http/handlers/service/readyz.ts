import { z } from 'zod';
import { publicEndpoint } from '../../route.ts';

/** No detail: the log says why. A load balancer needs no more, and a stranger gets no more. */
export const readyz = publicEndpoint({
  summary: 'Should this process get traffic',
  reply: {
    status: 200,
    description: 'Ready; 503 while shutting down or without its database, or with a full spool',
    schema: z.object({ status: z.enum(['ready', 'unready']) }),
  },
  handle: async ({ services: { health } }) => {
    const ready = !health.shuttingDown && health.spoolReady() && (await health.databaseReady());
    return ready ? { status: 200, body: { status: 'ready' } } : { status: 503, body: { status: 'unready' } };
  },
});
