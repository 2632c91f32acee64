import { isBedrockRegion } from '../domain/region.ts';
import { quoted, readCsv } from './csv.ts';
import type { CsvRecord } from './csv.ts';
import { profileOf } from './price-book.ts';
import { COLUMNS, includes, KEY_COLUMNS, keyOf, priceOf, sorted, texts } from './price-row.ts';
import type { Column, Row } from './price-row.ts';
import { ANY_REGION, parseDollars, PRICE_KINDS, PROFILES, TIERS } from './price.ts';
import type { Price, PriceKind } from './price.ts';

const MODEL_ID = /^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,3}(:[a-z0-9-]{1,63}){0,2}$/;
const MOMENT = /^20\d{2}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z$/;
const DAY = /^20\d{2}-\d{2}-\d{2}$/;
const COUNT = /^[1-9]\d{0,8}$/;
const BROKEN = 'all columns: a quote is misplaced, or never closed';
const SOURCE = /^\P{C}{1,500}$/u;

/** What is wrong with a column's text; undefined when nothing is. */
const RULES: Record<Exclude<Column, PriceKind>, (text: string) => string | undefined> = {
  modelId: modelIdProblem,
  region: (text) =>
    unless(text === ANY_REGION || isBedrockRegion(text), 'is neither a region of Bedrock nor *'),
  profile: (text) => unless(includes(PROFILES, text), `is none of ${PROFILES.join(', ')}`),
  tier: (text) => unless(includes(TIERS, text), `is none of ${TIERS.join(', ')}`),
  validFrom: (text) =>
    unless(MOMENT.test(text) && isDate(text), 'is no UTC date-time such as 2026-01-31T00:00:00Z'),
  contextTokens: countProblem,
  maxOutputTokens: countProblem,
  source: (text) =>
    unless(SOURCE.test(text) && text.trim() === text, 'must name the source in 1 to 500 characters'),
  sourceDate: (text) => unless(DAY.test(text) && isDate(text), 'is no date such as 2026-01-31'),
};

/**
 * Reads a price file: CSV (RFC 4180, UTF-8, lines that end in LF or CRLF) whose first line names the columns, in any order.
 * Prices are US dollars for a million units, as decimals of up to 9 places, and never become floating-point numbers.
 * @returns every problem of the file, each with its line and column; then `prices` has only the rows without one.
 */
export function parsePriceFile(text: string): { prices: Price[]; problems: string[] } {
  const [header, ...records] = readCsv(text);
  if (header === undefined)
    return { prices: [], problems: [`line 1: must name the columns: ${COLUMNS.join(',')}`] };
  const problems = headerProblems(header);
  if (problems.length > 0) return { prices: [], problems };

  const prices: Price[] = [];
  const seen = new Map<string, number>();
  for (const record of records) {
    const row = rowOf(header.fields, record);
    const found = typeof row === 'string' ? [row] : rowProblems(row);
    if (typeof row !== 'string') {
      const key = keyOf(row);
      const earlier = seen.get(key);
      if (earlier === undefined) seen.set(key, record.line);
      else found.push(`columns ${KEY_COLUMNS.join(', ')}: the same as in line ${String(earlier)}`);
      if (found.length === 0) prices.push(priceOf(row));
    }
    problems.push(...found.map((problem) => `line ${String(record.line)}, ${problem}`));
  }
  return { prices, problems };
}

/** The file of these prices, in the order of their keys: the same prices always give the same text. */
export function writePriceFile(prices: readonly Price[]): string {
  const lines = sorted(prices).map(({ price }) => texts(price).map(quoted).join(','));
  return [COLUMNS.join(','), ...lines, ''].join('\n');
}

/** A day that the calendar has: Date.parse takes February 30 for March 2. */
function isDate(text: string): boolean {
  const ms = Date.parse(text);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text.slice(0, 10));
}

function unless(fine: boolean, problem: string): string | undefined {
  return fine ? undefined : problem;
}

function modelIdProblem(text: string): string | undefined {
  if (!MODEL_ID.test(text)) return 'is no id of a foundation model such as amazon.nova-micro-v1:0';
  return unless(
    profileOf(text).profile === 'in-region',
    'is an inference profile: name the foundation model, and put how it is reached in column profile',
  );
}

/** Which digits are fine: parseDollars. */
function dollarsProblem(text: string): string | undefined {
  return unless(text === '' || parseDollars(text) !== undefined, 'is no price in US dollars such as 3.00');
}

function countProblem(text: string): string | undefined {
  return unless(text === '' || COUNT.test(text), 'is no whole number above 0');
}

function rowProblems(row: Row): string[] {
  const problems = COLUMNS.flatMap((column) => {
    const rule = includes(PRICE_KINDS, column) ? dollarsProblem : RULES[column];
    const problem = rule(row[column]);
    return problem === undefined ? [] : [`column ${column}: ${shown(row[column])} ${problem}`];
  });
  if (PRICE_KINDS.every((kind) => row[kind] === ''))
    problems.push(`columns ${PRICE_KINDS.join(', ')}: at least one must have a price`);
  if (row.input !== '' && row.embedding !== '')
    problems.push('columns input, embedding: a token of the input has one price, and this row has two');
  return problems;
}

function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

function headerProblems({ line, fields, broken }: CsvRecord): string[] {
  const at = `line ${String(line)}`;
  if (broken) return [`${at}, ${BROKEN}`];
  const unknown = fields.filter((name) => !includes(COLUMNS, name));
  const twice = fields.filter((name, index) => includes(COLUMNS, name) && fields.indexOf(name) !== index);
  return [
    ...unknown.map((name) => `${at}, column ${shown(name)}: is none that a price file has`),
    ...twice.map((name) => `${at}, column ${name}: is named twice`),
    ...COLUMNS.filter((name) => !fields.includes(name)).map((name) => `${at}, column ${name}: is missing`),
  ];
}

/** The row, or why it is none. */
function rowOf(columns: readonly string[], { fields, broken }: CsvRecord): Row | string {
  if (broken) return BROKEN;
  if (fields.length !== columns.length)
    return `all columns: has ${String(fields.length)} fields, and line 1 names ${String(columns.length)} columns`;
  return Object.fromEntries(columns.map((column, index) => [column, fields[index]])) as Row;
}
