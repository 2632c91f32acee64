import type { Merchant } from '../domain/merchant.ts';
import type { Cell } from './csv.ts';
import type { Correction, UsageRecord } from './usage.ts';

/**
 * A charge as FOCUS 1.x (FinOps Open Cost and Usage Specification) names its parts. The price book holds AWS's list prices and knows no discount,
 * so list, contracted and effective cost are the billed one. Unit prices are left out: a call has one cost over kinds of tokens that are priced
 * apart. Absent values are null.
 */
type Column = [name: string, of: (charge: Charge) => Cell];

/** Who is charged. */
export type BillingAccount = Pick<Merchant, 'id' | 'name'>;

interface Charge {
  merchant: BillingAccount;
  record: UsageRecord;
  /** Set where the charge is a correction of the record's. */
  correction?: Correction;
}

const COLUMNS: readonly Column[] = [
  ['BilledCost', costOf],
  ['BillingAccountId', ({ merchant }) => merchant.id],
  ['BillingAccountName', ({ merchant }) => merchant.name],
  ['BillingCurrency', () => 'USD'],
  ['BillingPeriodStart', (charge) => monthOf(billedAt(charge), 0)],
  ['BillingPeriodEnd', (charge) => monthOf(billedAt(charge), 1)],
  ['ChargeCategory', () => 'Usage'],
  ['ChargeClass', (charge) => (isLaterMonth(charge) ? 'Correction' : null)],
  ['ChargeDescription', descriptionOf],
  ['ChargeFrequency', () => 'Usage-Based'],
  ['ChargePeriodStart', ({ record }) => hourOf(record.createdAt, 0)],
  ['ChargePeriodEnd', ({ record }) => hourOf(record.createdAt, 1)],
  ['ConsumedQuantity', (charge) => consumptionOf(charge)?.quantity ?? null],
  ['ConsumedUnit', (charge) => consumptionOf(charge)?.unit ?? null],
  ['ContractedCost', costOf],
  ['EffectiveCost', costOf],
  ['InvoiceIssuerName', () => 'AWS'],
  ['ListCost', costOf],
  ['PricingQuantity', (charge) => consumptionOf(charge)?.quantity ?? null],
  ['PricingUnit', (charge) => consumptionOf(charge)?.unit ?? null],
  ['ProviderName', () => 'AWS'],
  ['PublisherName', () => 'AWS'],
  ['RegionId', ({ record }) => record.region],
  ['ResourceId', ({ record }) => (record.modelId.startsWith('arn:') ? record.modelId : null)],
  ['ServiceCategory', () => 'AI and Machine Learning'],
  ['ServiceName', () => 'Amazon Bedrock'],
  ['ServiceSubcategory', () => 'Generative AI'],
  ['SkuId', ({ record }) => `${record.baseModelId ?? record.modelId}/${record.tier ?? 'standard'}`],
  ['SkuPriceId', ({ record, correction }) => correction?.priceId ?? record.priceId],
  ['SubAccountId', ({ record }) => record.accountId],
  ['Tags', tagsOf],
  ['x_CallId', ({ record }) => record.id],
  ['x_ModelId', ({ record }) => record.modelId],
  ...(
    [
      ['x_InputTokens', 'input'],
      ['x_OutputTokens', 'output'],
      ['x_CacheReadTokens', 'cacheRead'],
      ['x_CacheWrite5mTokens', 'cacheWrite5m'],
      ['x_CacheWrite1hTokens', 'cacheWrite1h'],
    ] as const
  ).map(([name, kind]): Column => [
    name,
    ({ record, correction }) => (correction ? null : record.tokens[kind]),
  ]),
  ['x_Images', ({ record, correction }) => (correction ? null : record.images)],
];

export const FOCUS_COLUMNS: readonly string[] = COLUMNS.map(([name]) => name);

/** The cells of a charge, in the order of FOCUS_COLUMNS. The record must have a cost: BilledCost may be neither null nor a stand-in for it. */
export function focusCells(charge: Charge): Cell[] {
  return COLUMNS.map(([, of]) => of(charge));
}

function costOf({ record, correction }: Charge): Cell {
  return { decimal: usd(BigInt(correction?.deltaNanoUsd ?? record.costNanoUsd ?? 0)) };
}

function usd(nano: bigint): string {
  const digits = (nano < 0n ? -nano : nano).toString().padStart(10, '0');
  return `${nano < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

/** A correction is billed when it is made. */
function billedAt({ record, correction }: Charge): string {
  return correction?.createdAt ?? record.createdAt;
}

/** Within the month of the call a correction is no `Correction`: that is one of a period that was invoiced before. */
function isLaterMonth({ record, correction }: Charge): boolean {
  return correction !== undefined && correction.createdAt.slice(0, 7) > record.createdAt.slice(0, 7);
}

function descriptionOf({ record, correction }: Charge): string {
  const call = `${record.operation} of ${record.modelId}`;
  return correction === undefined ? call : `Correction of ${call}: ${correction.reason}`;
}

/** Must be above 0: a call without tokens and images (rerank, priced by the request) is one request. */
function consumptionOf({ record, correction }: Charge): { quantity: number; unit: string } | undefined {
  if (correction !== undefined) return undefined;
  const tokens = Object.values(record.tokens).reduce((sum, count) => sum + count, 0);
  if (tokens > 0) return { quantity: tokens, unit: 'Tokens' };
  return record.images > 0 ? { quantity: record.images, unit: 'Images' } : { quantity: 1, unit: 'Requests' };
}

/** JSON of names and text values; what a call does not have is left out. */
function tagsOf({ record }: Charge): string {
  const { credentialSource, credentialId, apiKeyId, endUser } = record;
  const tags = { credentialSource, credentialId, apiKeyId, endUser };
  return JSON.stringify(Object.fromEntries(Object.entries(tags).filter(([, value]) => value !== null)));
}

/** Start of the UTC month, so many months on. */
function monthOf(iso: string, months: number): string {
  const at = new Date(iso);
  return seconds(Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + months));
}

const HOUR_MS = 3_600_000;

function hourOf(iso: string, hours: number): string {
  return seconds((Math.floor(Date.parse(iso) / HOUR_MS) + hours) * HOUR_MS);
}

function seconds(time: number): string {
  return new Date(time).toISOString().replace('.000Z', 'Z');
}
