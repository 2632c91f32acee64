import { createHash } from 'node:crypto';
import { parseDollars, PRICE_KINDS } from './price.ts';
import type { Price } from './price.ts';
import { COLUMNS, includes, sorted, texts } from './price-row.ts';
import type { Column, Entry } from './price-row.ts';

/** One column that differs. Texts as in the file; empty means: has none. */
export interface PriceChange {
  column: Column;
  from: string;
  to: string;
  /** For prices, to one decimal; absent where there was none, or 0. */
  percent?: number;
}

/** A row of the new file, and what differs from the row before it. */
export interface PriceStep {
  price: Price;
  changes: PriceChange[];
}

export interface PriceDiff {
  /** Against the row each takes over from: of the same model, region, profile and tier, the latest one before it. */
  added: PriceStep[];
  /** Rows that keep their key and say something else. */
  changed: PriceStep[];
  removed: Price[];
  /** SHA-256 in hex of all of the above. Who approves a diff repeats it, and so approves this one and no other. */
  digest: string;
}

/** What changes when `next` takes the place of `current`. The order of rows means nothing. */
export function diffPrices(current: readonly Price[], next: readonly Price[]): PriceDiff {
  const [before, after] = [sorted(current), sorted(next)];
  const old = new Map(before.map((entry) => [entry.key, entry]));
  const kept = new Set(after.map((entry) => entry.key));
  const added = after
    .filter((entry) => !old.has(entry.key))
    .map((entry) => stepOf(predecessor(entry, after), entry));
  const changed = after
    .filter((entry) => old.has(entry.key))
    .map((entry) => stepOf(old.get(entry.key), entry))
    .filter((step) => step.changes.length > 0);
  const removed = before.filter((entry) => !kept.has(entry.key)).map((entry) => entry.price);
  const told = [...[added, changed].map((steps) => steps.map(toldStep)), removed.map(texts)];
  const digest = createHash('sha256').update(JSON.stringify(told)).digest('hex');
  return { added, changed, removed, digest };
}

/** Texts and numbers in one order, whatever made the objects. */
function toldStep({ price, changes }: PriceStep): unknown[] {
  return [texts(price), changes.map(({ column, from, to, percent }) => [column, from, to, percent])];
}

/** The row that `entry` takes over from. */
function predecessor(entry: Entry, all: readonly Entry[]): Entry | undefined {
  const series = ({ key }: Entry) => key.slice(0, key.lastIndexOf(' '));
  return all.findLast((other) => other.key < entry.key && series(other) === series(entry));
}

function stepOf(before: Entry | undefined, { price, row }: Entry): PriceStep {
  const changes = COLUMNS.filter((column) => column !== 'validFrom' || before === undefined)
    .map((column) => ({ column, from: before?.row[column] ?? '', to: row[column] }))
    .filter((change) => change.from !== change.to)
    .map((change) => ({ ...change, ...percentOf(change) }));
  return { price, changes };
}

function percentOf({ column, from, to }: PriceChange): { percent?: number } {
  const [before, after] = includes(PRICE_KINDS, column) ? [parseDollars(from), parseDollars(to)] : [];
  if (!before || after === undefined) return {};
  // Twice the permille, to round half away from 0.
  const twice = (2000n * (after - before)) / before;
  return { percent: Number((twice + (twice < 0n ? -1n : 1n)) / 2n) / 10 };
}
