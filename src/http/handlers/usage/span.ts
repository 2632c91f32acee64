import { z } from 'zod';
import { SPAN_DAYS_MAX, TIMEFRAMES } from '../../../ledger/usage.ts';
import type { DateSpan, Span, Timeframe } from '../../../ledger/usage.ts';

const DAY_MS = 86_400_000;

/** A UTC day. */
export const date = z.iso
  .date('must be a date such as 2026-01-31')
  .refine((text) => text >= '2000' && text < '2200', 'is out of range')
  .optional();

/** `timeframe`: the running one. `from` and `to` (exclusive) in its place: those days. */
export const spanFields = {
  timeframe: z.enum(TIMEFRAMES, `must be one of ${TIMEFRAMES.join(', ')}`).optional(),
  from: date,
  to: date,
};

interface SpanQuery {
  timeframe?: Timeframe | undefined;
  from?: string | undefined;
  to?: string | undefined;
}

export function orderedDates({ from, to }: SpanQuery): boolean {
  return from === undefined || to === undefined || from < to;
}

/** @returns what is wrong, or undefined. */
export function spanProblem({ timeframe, ...dates }: SpanQuery): string | undefined {
  const { from, to } = dates;
  if (from === undefined && to === undefined) return undefined;
  if (from === undefined || to === undefined) return 'needs both from and to';
  if (timeframe !== undefined) return 'takes a timeframe, or from and to';
  if (!orderedDates(dates)) return 'needs from before to';
  if (daysOf({ from, to }) > SPAN_DAYS_MAX) return `takes at most ${String(SPAN_DAYS_MAX)} days`;
  return undefined;
}

/** Of a query without a problem. */
export function spanOf({ timeframe, from, to }: SpanQuery): Span {
  return from === undefined || to === undefined ? (timeframe ?? 'month') : { from, to };
}

function daysOf({ from, to }: DateSpan): number {
  return (Date.parse(to) - Date.parse(from)) / DAY_MS;
}

/** A check for zod: the problem as an issue of the whole query. */
export function checkSpan(context: z.core.ParsePayload<SpanQuery>): void {
  const message = spanProblem(context.value);
  if (message !== undefined) context.issues.push({ code: 'custom', message, input: '' });
}

/** A list such as `model,day`; the same name twice is refused. */
export function groupList<const T extends readonly [string, ...string[]]>(names: T, fallback: string) {
  return z
    .string()
    .default(fallback)
    .transform((text) => (text === '' ? [] : text.split(',')))
    .pipe(z.array(z.enum(names, `must be some of ${names.join(', ')}, separated by commas`)))
    .refine((list) => new Set(list).size === list.length, 'names a group twice');
}
