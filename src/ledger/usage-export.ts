import { csvLine } from './csv.ts';
import type { Cell } from './csv.ts';
import { FOCUS_COLUMNS, focusCells } from './focus.ts';
import type { BillingAccount } from './focus.ts';
import type { ExportFormat, ExportPage, UsageRecord } from './usage.ts';

/** What a writer knows at the end. */
export interface ExportTotals {
  /** Records or, for FOCUS, charges that were written. */
  lines: number;
  /** FOCUS only: settled calls that have no cost, and therefore no line. */
  unpriced: number;
}

interface Writer {
  head: string;
  /** The lines of a page. */
  body: (page: ExportPage) => string[];
  /** The last record, by which a reader knows that it has all. */
  end: (lines: number) => string;
}

const COLUMNS: readonly [name: string, of: (record: UsageRecord) => Cell][] = [
  ...(
    [
      'id',
      'state',
      'operation',
      'modelId',
      'baseModelId',
      'region',
      'accountId',
      'credentialSource',
      'credentialId',
      'credentialVersion',
      'subject',
      'apiKeyId',
      'endUser',
      'requestId',
      'createdAt',
      'resolvedAt',
      'reason',
      'provenance',
      'images',
      'tier',
      'priceId',
      'maxTokens',
      'holdTokens',
      'holdNanoUsd',
      'costNanoUsd',
      'awsStatus',
      'awsErrorType',
      'awsRequestId',
      'latencyMs',
      'timeToFirstByteMs',
    ] as const satisfies (keyof UsageRecord)[]
  ).map((name): [string, (record: UsageRecord) => Cell] => [name, (record) => record[name]]),
  ...(['input', 'output', 'cacheRead', 'cacheWrite5m', 'cacheWrite1h'] as const).map(
    (kind): [string, (record: UsageRecord) => Cell] => [`${kind}Tokens`, (record) => record.tokens[kind]],
  ),
];
/** The first cell of the last record of a CSV. Every other record begins with a call's id. */
const CSV_END = '#end';

/**
 * An export piece by piece: a head, one piece for each page, an end. Only one page is in memory. CSV and NDJSON end with a record that counts
 * those before it (`#end,<count>,…` and `{"end":true,"records":<count>}`), so one that was cut never looks whole. In FOCUS every line is a charge,
 * so there is none: the totals, which this returns, tell it beside the body.
 */
export async function* exportText(
  format: ExportFormat,
  merchant: BillingAccount,
  pages: AsyncIterable<ExportPage>,
): AsyncGenerator<string, ExportTotals> {
  const { head, body, end } = WRITERS[format](merchant);
  const totals: ExportTotals = { lines: 0, unpriced: 0 };
  let before = head;
  for await (const page of pages) {
    const lines = body(page);
    totals.lines += lines.length;
    if (format === 'focus') totals.unpriced += page.records.filter(isUnpriced).length;
    yield before + lines.join('');
    before = '';
  }
  yield before + end(totals.lines);
  return totals;
}

const WRITERS: Record<ExportFormat, (merchant: BillingAccount) => Writer> = {
  csv: () => ({
    head: csvLine(COLUMNS.map(([name]) => name)),
    body: ({ records }) => records.map((record) => csvLine(COLUMNS.map(([, of]) => of(record)))),
    end: (lines) => csvLine(COLUMNS.map((_, at) => (at === 0 ? CSV_END : at === 1 ? lines : null))),
  }),
  ndjson: () => ({
    head: '',
    body: ({ records }) => records.map((record) => `${JSON.stringify(record)}\n`),
    end: (records) => `${JSON.stringify({ end: true, records })}\n`,
  }),
  focus: (merchant) => ({
    head: csvLine(FOCUS_COLUMNS),
    body: ({ records, corrections }) => [
      ...records
        .filter(({ costNanoUsd }) => costNanoUsd !== null)
        .map((record) => csvLine(focusCells({ merchant, record }))),
      ...corrections.flatMap((correction) => {
        const record = records.find(({ id }) => id === correction.callId);
        return record === undefined ? [] : [csvLine(focusCells({ merchant, record, correction }))];
      }),
    ],
    end: () => '',
  }),
};

function isUnpriced({ state, costNanoUsd }: UsageRecord): boolean {
  return state === 'settled' && costNanoUsd === null;
}
