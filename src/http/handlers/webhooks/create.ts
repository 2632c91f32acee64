import { z } from 'zod';
import { ALERT_EVENTS } from '../../../domain/alerts.ts';
import { merchantEndpoint } from '../../route.ts';

const event = z.enum(ALERT_EVENTS, `must be one of ${ALERT_EVENTS.join(', ')}`);
const body = z.strictObject({
  url: z.string().max(2_048),
  events: z
    .array(event)
    .min(1)
    .refine((list) => new Set(list).size === list.length, 'names an event twice')
    .optional(),
});

export const createWebhook = merchantEndpoint<z.output<typeof body>>({
  summary: 'Have alerts sent to an https address, signed (Standard Webhooks). Without events: all of them',
  body,
  reply: {
    status: 201,
    description: 'The signing secret is shown this one time',
    schema: z.object({ id: z.string(), secret: z.string(), url: z.string(), events: z.array(event) }),
  },
  handle: async ({ services, actor, merchant, body: webhook }) => ({
    status: 201,
    body: await services.webhooks.create(actor, merchant.id, webhook),
  }),
});
