import type { PacedTally } from './job.ts';
import type { NeighbourCell, FloodName } from './neighbours.ts';
import { FLOODS, OTHERS, PACE } from './neighbours.ts';
import { markdownTable, number } from './report-table.ts';
import { median } from './statistics.ts';

const BESIDE: Readonly<Record<FloodName, string>> = {
  none: 'nobody',
  'fifty-times': `${String(FLOODS['fifty-times'].perSecond)} calls/s`,
  'most-of-the-machine': `${String(FLOODS['most-of-the-machine'].perSecond)} calls/s`,
  'all-it-can': `all it can, ${String(FLOODS['all-it-can'].inFlight)} at once`,
};

/** Medians of the rounds; times in milliseconds. */
export function neighboursText(cells: readonly NeighbourCell[]): string {
  const alone = cells.find(({ flood }) => flood === 'none');
  const rows = cells.map((cell) => {
    const others = (part: 'p50' | 'p99', { rounds } = cell) =>
      median(rounds.map((callers) => callers['others']?.latency[part] ?? Number.NaN));
    const times = (part: 'p50' | 'p99') =>
      alone === undefined ? '' : number(others(part) / others(part, alone));
    const flooded = (of: (tally: PacedTally) => number) =>
      median(cell.rounds.map(({ flood }) => (flood === undefined ? Number.NaN : of(flood) / cell.seconds)));
    return [
      BESIDE[cell.flood],
      ...[others('p50'), others('p99')].map(number),
      times('p50'),
      times('p99'),
      number(flooded(({ latency }) => latency.count)),
      number(flooded(({ refused }) => refused)),
    ];
  });
  const header = [
    'Beside them',
    'p50 ms',
    'p99 ms',
    'p50, times',
    'p99, times',
    'Flood answered/s',
    'refused/s',
  ];
  return (
    `${String(OTHERS)} merchants that call \`converse\` ${String(PACE)} time a second each, at fixed times, and one that floods; latencies of the ${String(OTHERS)}.\n\n` +
    markdownTable(header, rows, 1)
  );
}

export function neighbourErrors(cells: readonly NeighbourCell[]): string[] {
  return cells.flatMap(({ flood, rounds }) =>
    rounds.flatMap((callers) =>
      Object.entries(callers).flatMap(([name, { errors, refused, firstError }]) => {
        const all = name === 'others' ? errors + refused : errors;
        return all === 0
          ? []
          : [`neighbours beside ${flood}, ${name}: ${String(all)} errors, first: ${firstError ?? 'refused'}`];
      }),
    ),
  );
}
