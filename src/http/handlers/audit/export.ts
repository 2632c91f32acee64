import { z } from 'zod';
import { auditExport } from '../../../audit/export.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import type { MerchantContext, OperatorContext } from '../../context.ts';
import { merchantEndpoint } from '../../route.ts';
import { writeStream } from '../../stream-reply.ts';
import { whileAllowed } from '../../while-allowed.ts';
import { readingOf } from './reading.ts';

const seq = z
  .string()
  .regex(/^[1-9]\d{0,14}$/, 'must be the number of an event, from 1')
  .transform(Number)
  .optional();
export const exportQuery = z.strictObject({ from: seq, to: seq });
type Span = z.output<typeof exportQuery>;

export const exportReply = {
  status: 200,
  description:
    'JSON lines (application/jsonl), streamed: the events from..to by number, oldest first, each as GET /audit shows it, then a last line {"end":true,…} with the newest signed checkpoint and the proof of this chain. It goes no further than the checkpoint (where there is none, to the end), so that npm run audit:verify -- --export can check all of it alone. What was cut has no last line.',
};

export const exportAudit = merchantEndpoint<undefined, Span>({
  summary: "The merchant's audit trail as JSON lines that prove themselves",
  query: exportQuery,
  reply: exportReply,
  handle: async (context) => {
    await sendExport(context, context.merchant.id, context.query);
    return undefined;
  },
});

type Context = Pick<
  MerchantContext | OperatorContext,
  'req' | 'res' | 'services' | 'actor' | 'principal' | 'event'
>;

/** Records the reading, then streams. Before the first byte every failure is still an answer of its own. */
export function sendExport(context: Context, chain: MerchantId, span: Span): Promise<void> {
  return whileAllowed(context, (assertHeld) => write(context, chain, span, assertHeld));
}

async function write(
  { req, res, services, actor }: Context,
  chain: MerchantId,
  { from = 1, to }: Span,
  assertHeld: () => void,
): Promise<void> {
  const reading = readingOf(actor, chain, { what: 'export', from, ...(to !== undefined && { to }) });
  const { recorded, checkpoint } = await services.checkpoints.read(chain, reading);
  const end = Math.min(to ?? Infinity, checkpoint?.leaf.seq ?? recorded - 1);
  const span = { chain, from, to: Math.max(end, from - 1) };
  assertHeld();
  res.status(200).set({
    'content-type': 'application/jsonl; charset=utf-8',
    'content-disposition': `attachment; filename="audit-${chain.replace('~', '')}-${String(from)}-${String(span.to)}.jsonl"`,
  });
  if (req.method === 'HEAD') {
    res.end();
    return;
  }
  await writeStream(res, auditExport(services.audit, span, checkpoint), services.limits.stallTimeoutMs);
}
