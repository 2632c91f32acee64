import { z } from 'zod';
import { publicEndpoint } from '../../route.ts';

export const livez = publicEndpoint({
  summary: 'Is this process alive',
  reply: { status: 200, description: 'The event loop turns', schema: z.object({ status: z.literal('ok') }) },
  handle: () => Promise.resolve({ status: 200, body: { status: 'ok' } }),
});
