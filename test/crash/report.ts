import { groupBy } from './books.ts';
import type { RoundResult } from './round.ts';
import { duplicatesIn } from './run.ts';
import type { RunResult } from './run.ts';

/** What a run did, as Markdown. */
export function render({ results, rows, witnesses, faults, ...counted }: RunResult): string {
  const seen = results.flatMap((result) => result.seen);
  const refused = seen.filter(({ callId, status }) => callId === undefined && typeof status === 'number');
  const totals: [string, number][] = [
    ['rounds', results.length],
    ['calls made', seen.length],
    ['answered in full', seen.filter(({ status }) => typeof status === 'number').length],
    ['cut by a death', seen.filter(({ status }) => status === 'cut').length],
    ['left by their caller', seen.filter(({ status }) => status === 'left').length],
    ['refused before a row was written', refused.length],
    ['held to less output than asked', seen.filter(({ clamped }) => clamped).length],
    ['requests at AWS', witnesses.length],
    ['of these run and billed', witnesses.filter(({ executed }) => executed).length],
    ['requests that broke off on their way', sum(results.map(({ brokenOff }) => brokenOff))],
    ['ledger rows', rows.length],
    ['unknown rows found', sum(results.map(({ unknown }) => unknown))],
    ['unknown rows resolved', sum(results.map(({ resolved }) => resolved))],
    ['duplicates', duplicatesIn(witnesses)],
    ['differences between sums and rows', counted.differences],
    ['broken audit chains', counted.brokenChains],
    ['faults', faults.length],
  ];
  return [
    table(['killed at', 'rounds', 'calls', 'at AWS', 'cut', 'unknown', 'resolved'], pointRows(results)),
    table(['operation', 'rows', 'settled', 'void', 'unknown', 'held'], stateRows(rows)),
    table(
      ['in all', ''],
      totals.map(([name, count]) => [name, String(count)]),
    ),
  ].join('\n\n');
}

function pointRows(results: readonly RoundResult[]): string[][] {
  return [...groupBy(results, ({ point }) => point)].map(([point, group]) => [
    point,
    String(group.length),
    String(sum(group.map(({ seen }) => seen.length))),
    String(sum(group.map(({ witnesses }) => witnesses.length))),
    String(sum(group.map(({ seen }) => seen.filter(({ status }) => status === 'cut').length))),
    String(sum(group.map(({ unknown }) => unknown))),
    String(sum(group.map(({ resolved }) => resolved))),
  ]);
}

function stateRows(rows: RunResult['rows']): string[][] {
  return [...groupBy(rows, ({ operation }) => operation)].map(([operation, group]) => [
    operation,
    String(group.length),
    ...(['settled', 'void', 'unknown', 'held'] as const).map((state) =>
      String(group.filter((row) => row.state === state).length),
    ),
  ]);
}

function table(head: readonly string[], body: readonly (readonly string[])[]): string {
  const widths = head.map((cell, column) =>
    Math.max(3, cell.length, ...body.map((row) => row[column]?.length ?? 0)),
  );
  const padded = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [padded(head), rule, ...body.map(padded)].join('\n');
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
