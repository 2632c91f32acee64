import { createHash } from 'node:crypto';
import { isBedrockRegion } from '../domain/region.ts';
import { ANY_REGION, formatDollars, parseDollars, PRICE_KINDS, PROFILES, TIERS } from './price.ts';
import type { Price, PriceKind, Profile, Tier } from './price.ts';
import { profileOf } from './price-book.ts';

const KEY_COLUMNS = ['modelId', 'region', 'profile', 'tier', 'validFrom'] as const;
const FACT_COLUMNS = ['contextTokens', 'maxOutputTokens', 'source', 'sourceDate'] as const;
const COLUMNS = [...KEY_COLUMNS, ...PRICE_KINDS, ...FACT_COLUMNS] as const;
type Column = (typeof COLUMNS)[number];
type Row = Record<Column, string>;
const EMPTY_ROW = Object.fromEntries(COLUMNS.map((column) => [column, ''])) as Row;

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

interface Entry {
  price: Price;
  row: Row;
  key: string;
}

/** In the order of their keys: model, region, profile, tier, moment. */
function sorted(prices: readonly Price[]): Entry[] {
  const entries = prices.map((price) => {
    const row = rowOfPrice(price);
    return { price, row, key: keyOf(row) };
  });
  return entries.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
}

/** Of texts without spaces, the moment always to the millisecond: equal keys are equal, and greater ones of a series are later. */
function keyOf(row: Row): string {
  const moment = row.validFrom.replace(/(:\d\d)Z$/, '$1.000Z');
  return [row.modelId, row.region, row.profile, row.tier, moment].join(' ');
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

function texts(price: Price): string[] {
  const row = rowOfPrice(price);
  return COLUMNS.map((column) => row[column]);
}

function rowOfPrice(price: Price): Row {
  const { modelId, region, profile, tier, source, sourceDate } = price;
  const prices = Object.entries(price.nanoUsdPerMillion).map(([kind, nano]) => [kind, formatDollars(nano)]);
  return {
    ...EMPTY_ROW,
    ...(Object.fromEntries(prices) as Partial<Row>),
    ...{ modelId, region, profile, tier, source, sourceDate },
    validFrom: new Date(price.validFromMs).toISOString().replace('.000Z', 'Z'),
    contextTokens: String(price.contextTokens ?? ''),
    maxOutputTokens: String(price.maxOutputTokens ?? ''),
  };
}

/** @param row without problems. */
function priceOf(row: Row): Price {
  const prices = PRICE_KINDS.map((kind) => [kind, parseDollars(row[kind])] as const);
  return {
    modelId: row.modelId,
    region: row.region,
    profile: row.profile as Profile,
    tier: row.tier as Tier,
    validFromMs: Date.parse(row.validFrom),
    nanoUsdPerMillion: Object.fromEntries(prices.filter(([, nano]) => nano !== undefined)),
    ...(row.contextTokens !== '' && { contextTokens: Number(row.contextTokens) }),
    ...(row.maxOutputTokens !== '' && { maxOutputTokens: Number(row.maxOutputTokens) }),
    source: row.source,
    sourceDate: row.sourceDate,
  };
}

/** A day that the calendar has: Date.parse takes February 30 for March 2. */
function isDate(text: string): boolean {
  const ms = Date.parse(text);
  return !Number.isNaN(ms) && new Date(ms).toISOString().startsWith(text.slice(0, 10));
}

function includes<T extends string>(list: readonly T[], text: string): text is T {
  return (list as readonly string[]).includes(text);
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

interface CsvRecord {
  /** Where it begins, from 1. */
  line: number;
  fields: string[];
  /** A quote stands where none may: the rest of the line was skipped. */
  broken: boolean;
}

/** One field and what ends it. In quotes, quotes inside are doubled. */
const FIELD = /(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n|$)/y;
const REST_OF_LINE = /[^\n]*\n?/y;

/** Records of a CSV text; empty lines are none. A byte order mark, which spreadsheets write, is not part of the first field. */
function readCsv(text: string): CsvRecord[] {
  const records: CsvRecord[] = [];
  let line = 1;
  let at = text.startsWith('\uFEFF') ? 1 : 0;
  while (at < text.length) {
    const { fields, end, broken } = readRecord(text, at);
    if (broken || fields.length > 1 || fields[0] !== '') records.push({ line, fields, broken });
    line += text.slice(at, end).split('\n').length - 1;
    at = end;
  }
  return records;
}

function readRecord(text: string, start: number): { fields: string[]; end: number; broken: boolean } {
  const fields: string[] = [];
  for (let at = start; ; at = FIELD.lastIndex) {
    FIELD.lastIndex = at;
    const match = FIELD.exec(text);
    if (match === null) {
      REST_OF_LINE.lastIndex = at;
      REST_OF_LINE.test(text);
      return { fields, end: REST_OF_LINE.lastIndex, broken: true };
    }
    const [, inQuotes, bare = '', separator] = match;
    fields.push(inQuotes?.replaceAll('""', '"') ?? bare);
    if (separator !== ',') return { fields, end: FIELD.lastIndex, broken: false };
  }
}

function quoted(field: string): string {
  return /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

/** The row, or why it is none. */
function rowOf(columns: readonly string[], { fields, broken }: CsvRecord): Row | string {
  if (broken) return BROKEN;
  if (fields.length !== columns.length)
    return `all columns: has ${String(fields.length)} fields, and line 1 names ${String(columns.length)} columns`;
  return Object.fromEntries(columns.map((column, index) => [column, fields[index]])) as Row;
}
