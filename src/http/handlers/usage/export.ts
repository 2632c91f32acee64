import { z } from 'zod';
import { exportText } from '../../../ledger/usage-export.ts';
import type { ExportTotals } from '../../../ledger/usage-export.ts';
import { EXPORT_FORMATS } from '../../../ledger/usage.ts';
import type { ExportFormat } from '../../../ledger/usage.ts';
import type { MerchantContext } from '../../context.ts';
import { merchantEndpoint } from '../../route.ts';
import { writeStream } from '../../stream-reply.ts';
import { whileAllowed } from '../../while-allowed.ts';
import { checkSpan, date } from './span.ts';

const query = z
  .strictObject({
    format: z.enum(EXPORT_FORMATS, `must be one of ${EXPORT_FORMATS.join(', ')}`),
    from: date.unwrap(),
    to: date.unwrap(),
  })
  .check(checkSpan);

type Query = z.infer<typeof query>;

const TYPES: Record<ExportFormat, string> = {
  csv: 'text/csv; charset=utf-8; header=present',
  ndjson: 'application/x-ndjson; charset=utf-8',
  focus: 'text/csv; charset=utf-8; header=present',
};
const TRAILERS = ['x-bedrock-export-lines', 'x-bedrock-export-unpriced'] as const;

export const usageExport = merchantEndpoint<undefined, Query>({
  summary:
    'The records of the days from..to (UTC, exclusive, at most 400), oldest first, as CSV, NDJSON or FOCUS 1.x charges',
  query,
  reply: {
    status: 200,
    description:
      'A stream. CSV and NDJSON end with a record that counts the ones before it (#end,N and {"end":true,"records":N}); all formats name the count in the trailer field x-bedrock-export-lines. What was cut has neither. FOCUS holds charges, so calls without a cost are not in it; x-bedrock-export-unpriced counts the settled ones among them.',
  },
  handle: async (context) => {
    await whileAllowed(context, (assertHeld) => write(context, assertHeld));
    return undefined;
  },
});

async function write(
  { req, res, services, merchant, query: { format, from, to } }: MerchantContext<undefined, Query>,
  assertHeld: () => void,
): Promise<void> {
  const text = exportText(format, merchant, services.usage.pages(merchant.id, { from, to }));
  // The first page comes before the status, so that a database that is away is still a 503.
  const first = await text.next();
  assertHeld();
  res.status(200).set({
    'content-type': TYPES[format],
    'content-disposition': `attachment; filename="${merchant.id}-${from}-${to}${format === 'focus' ? '-focus' : ''}.${format === 'ndjson' ? 'ndjson' : 'csv'}"`,
    // Node refuses to send the field with what cannot have trailer fields: an answer without a body, or of HTTP/1.0.
    ...(req.method !== 'HEAD' && req.httpVersion !== '1.0' && { trailer: TRAILERS.join(', ') }),
  });
  if (req.method === 'HEAD') {
    await text.return({ lines: 0, unpriced: 0 });
    res.end();
    return;
  }
  const pieces = piecesOf(first, text, ({ lines, unpriced }) => {
    res.addTrailers({ [TRAILERS[0]]: String(lines), [TRAILERS[1]]: String(unpriced) });
  });
  await writeStream(res, pieces, services.limits.stallTimeoutMs);
}

/** The pieces, and their totals to `end` when all have been taken. */
async function* piecesOf(
  first: IteratorResult<string, ExportTotals>,
  rest: AsyncGenerator<string, ExportTotals>,
  end: (totals: ExportTotals) => void,
): AsyncGenerator<string> {
  try {
    let next = first;
    while (next.done !== true) {
      yield next.value;
      next = await rest.next();
    }
    end(next.value);
  } finally {
    await rest.return({ lines: 0, unpriced: 0 });
  }
}
