import { z } from 'zod';
import { MERCHANT_ID_PATTERN } from '../../../domain/ids.ts';
import { checkpointReply, newestCheckpoint } from '../audit/checkpoint.ts';
import { exportQuery, exportReply, sendExport } from '../audit/export.ts';
import { auditEvent, auditQuery } from '../audit/list.ts';
import { chainOf, readingOf } from '../audit/reading.ts';
import { operatorEndpoint } from '../../route.ts';
import { page } from '../../schemas.ts';

const merchantId = z.string().regex(MERCHANT_ID_PATTERN, 'must be the id of a merchant').optional();
const listQuery = auditQuery.extend({ merchantId });
const spanQuery = exportQuery.extend({ merchantId });
const chainQuery = z.strictObject({ merchantId });

export const opsAudit = operatorEndpoint<undefined, z.infer<typeof listQuery>>({
  summary: 'The audit trail of the operators, or of the merchant that merchantId names, newest first',
  query: listQuery,
  reply: {
    status: 200,
    description:
      'A page of events, as they were before this request, which is recorded on the chain it reads',
    schema: page(auditEvent),
  },
  handle: async ({ services, actor, query }) => {
    const chain = await chainOf(services, query.merchantId);
    const { limit, cursor } = query;
    const reading = readingOf(actor, chain, { what: 'list', ...(cursor !== undefined && { cursor }) });
    const before = cursor === undefined ? undefined : BigInt(cursor);
    return { status: 200, body: await services.audit.list(chain, reading, limit, before) };
  },
});

export const opsAuditExport = operatorEndpoint<undefined, z.infer<typeof spanQuery>>({
  summary: 'The same audit trail as JSON lines that prove themselves',
  query: spanQuery,
  reply: exportReply,
  handle: async (context) => {
    const { services, query } = context;
    await sendExport(context, await chainOf(services, query.merchantId), query);
    return undefined;
  },
});

export const opsAuditCheckpoint = operatorEndpoint<undefined, z.infer<typeof chainQuery>>({
  summary: 'The newest signed checkpoint of all audit chains, with the proof of that one',
  query: chainQuery,
  reply: checkpointReply,
  handle: async ({ services, actor, query }) => ({
    status: 200,
    body: await newestCheckpoint(services, actor, await chainOf(services, query.merchantId)),
  }),
});
