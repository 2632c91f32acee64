import { MODEL_REACHES } from '../domain/model.ts';
import type { ModelReach } from '../domain/model.ts';

/**
 * How a call reaches the model: in the region itself, through an inference profile of a geography or of all the world, or on throughput
 * that is paid by the hour: its tokens have no price unless the book says so, 0 for instance.
 */
export const PROFILES = MODEL_REACHES;
export type Profile = ModelReach;

/** What a request asks of the service: `serviceTier`, or `performanceConfig.latency = optimized`. */
export const TIERS = ['standard', 'priority', 'flex', 'latency-optimized'] as const;
export type Tier = (typeof TIERS)[number];

/**
 * What is counted: tokens, but for `image` (images) and `request` (requests). `embedding` is the price of an input token of an embedding
 * model, in place of `input`.
 */
export const PRICE_KINDS = [
  'input',
  'output',
  'cacheRead',
  'cacheWrite5m',
  'cacheWrite1h',
  'image',
  'embedding',
  'request',
] as const;
export type PriceKind = (typeof PRICE_KINDS)[number];

/** The region of a price that holds in every region without a row of its own. */
export const ANY_REGION = '*';

/** What a price is for. */
export interface PriceQuery {
  /** A foundation model, without the prefix of an inference profile. */
  modelId: string;
  region: string;
  profile: Profile;
  tier: Tier;
}

/** One set of prices of one model, from one moment on. Model, region, profile, tier and moment together are its key. */
export interface Price extends PriceQuery {
  /** Milliseconds since the epoch. The price holds from this moment on, until a later one of the same model, region, profile and tier. */
  validFromMs: number;
  /** Whole nano-USD for a million units. A kind that is absent has no price, which is not the same as 0: free of charge. */
  nanoUsdPerMillion: Readonly<Partial<Record<PriceKind, bigint>>>;
  /** The model's limits, as far as they are known. */
  contextTokens?: number;
  maxOutputTokens?: number;
  /** Where the numbers were read: a URL, or a public file with its commit. */
  source: string;
  /** The day they were current there, `YYYY-MM-DD`. */
  sourceDate: string;
}

/** A price with the id of its row, which the ledger keeps beside each call. */
export type StoredPrice = Price & { id: bigint };

/** A price with its history: a price that is corrected under the same key is the next revision. */
export type BookedPrice = StoredPrice & { revision: number; importedBy: string; importedAt: string };

/** Nine digits on either side: what fits into a bigint of the database. */
const DOLLARS = /^(0|[1-9]\d{0,8})(?:\.(\d{1,9}))?$/;

/** US dollars such as `3`, `3.00` or `0.0375` as nano-USD, digit by digit; undefined for what is none. */
export function parseDollars(text: string): bigint | undefined {
  const match = DOLLARS.exec(text);
  return match === null ? undefined : BigInt((match[1] ?? '') + (match[2] ?? '').padEnd(9, '0'));
}

/** Nano-USD as US dollars, with all decimals that there are, and two at least. @param nanoUsd from 0 on. */
export function formatDollars(nanoUsd: bigint): string {
  const digits = nanoUsd.toString().padStart(10, '0');
  return `${digits.slice(0, -9)}.${digits.slice(-9).replace(/0{1,7}$/, '')}`;
}
