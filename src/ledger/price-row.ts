import { formatDollars, parseDollars, PRICE_KINDS } from './price.ts';
import type { Price, Profile, Tier } from './price.ts';

export const KEY_COLUMNS = ['modelId', 'region', 'profile', 'tier', 'validFrom'] as const;
const FACT_COLUMNS = ['contextTokens', 'maxOutputTokens', 'source', 'sourceDate'] as const;
export const COLUMNS = [...KEY_COLUMNS, ...PRICE_KINDS, ...FACT_COLUMNS] as const;
export type Column = (typeof COLUMNS)[number];
/** A price as a file has it: texts, empty where it has none. */
export type Row = Record<Column, string>;
const EMPTY_ROW = Object.fromEntries(COLUMNS.map((column) => [column, ''])) as Row;

/** A price with its row and its key. */
export interface Entry {
  price: Price;
  row: Row;
  key: string;
}

/** In the order of their keys: model, region, profile, tier, moment. */
export function sorted(prices: readonly Price[]): Entry[] {
  const entries = prices.map((price) => {
    const row = rowOfPrice(price);
    return { price, row, key: keyOf(row) };
  });
  return entries.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
}

/** Of texts without spaces, the moment always to the millisecond: equal keys are equal, and greater ones of a series are later. */
export function keyOf(row: Row): string {
  const moment = row.validFrom.replace(/(:\d\d)Z$/, '$1.000Z');
  return [row.modelId, row.region, row.profile, row.tier, moment].join(' ');
}

/** In the order of COLUMNS. */
export function texts(price: Price): string[] {
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
export function priceOf(row: Row): Price {
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

export function includes<T extends string>(list: readonly T[], text: string): text is T {
  return (list as readonly string[]).includes(text);
}
