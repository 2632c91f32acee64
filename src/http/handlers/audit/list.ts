import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { limit, page } from '../../schemas.ts';
import { readingOf } from './reading.ts';

export const auditQuery = z.strictObject({
  limit,
  cursor: z
    .string()
    .regex(/^\d{1,18}$/, 'is not one that this route gave out')
    .optional(),
});

/** `body` is the JSON text that was hashed, byte for byte. */
export const auditEvent = z.object({
  merchantId: z.string(),
  seq: z.int(),
  atMicros: z.string(),
  at: z.string(),
  actor: z.string(),
  action: z.string(),
  resource: z.string(),
  outcome: z.string(),
  requestId: z.string(),
  body: z.string(),
  prevHash: z.string(),
  hash: z.string(),
});

export const listAudit = merchantEndpoint<undefined, z.infer<typeof auditQuery>>({
  summary: "The merchant's audit trail, newest first: a hash chain that npm run audit:verify checks",
  query: auditQuery,
  reply: {
    status: 200,
    description:
      'A page of events, as they were before this request: its own audit.read is in the next. body is the JSON text that was hashed, byte for byte.',
    schema: page(auditEvent),
  },
  handle: async ({ services, merchant, actor, query: { limit: size, cursor } }) => {
    const reading = readingOf(actor, merchant.id, { what: 'list', ...(cursor !== undefined && { cursor }) });
    const before = cursor === undefined ? undefined : BigInt(cursor);
    return { status: 200, body: await services.audit.list(merchant.id, reading, size, before) };
  },
});
