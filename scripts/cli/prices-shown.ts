import type { Rerated } from '../../src/ledger/price-admin-store.ts';
import type { PriceChange, PriceDiff, PriceStep } from '../../src/ledger/price-diff.ts';
import { formatDollars, PRICE_KINDS } from '../../src/ledger/price.ts';
import type { Price } from '../../src/ledger/price.ts';

const KEY: readonly string[] = ['modelId', 'region', 'profile', 'tier', 'validFrom'];

/** Every difference, a row of the file to each, with what changes and by how much. */
export function diffText({ added, changed, removed }: PriceDiff): string {
  return [
    ...added.map((step) => stepText('+', step)),
    ...changed.map((step) => stepText('~', step)),
    ...removed.map((price) => `- ${keyText(price)}\n    ${kindsText(price)}\n`),
  ].join('');
}

export function countsText({
  added,
  changed,
  removed,
}: Record<'added' | 'changed' | 'removed', number>): string {
  return `${String(added)} added, ${String(changed)} changed, ${String(removed)} removed`;
}

/** One line for each price. */
export function priceText(price: Price): string {
  return `${keyText(price)}  ${kindsText(price)}\n`;
}

export function reratedText({ calls, corrected, deltaNanoUsd, withoutPrice }: Rerated): string {
  const left = withoutPrice === 0 ? '' : `, ${String(withoutPrice)} without a price left as they are`;
  return `${String(calls)} calls, ${String(corrected)} corrected by ${signedDollars(deltaNanoUsd)} USD${left}`;
}

function stepText(sign: string, { price, changes }: PriceStep): string {
  const told = changes.filter(({ column }) => !KEY.includes(column)).map(changeText);
  return `${sign} ${keyText(price)}\n    ${told.length === 0 ? 'as before' : told.join(', ')}\n`;
}

function changeText({ column, from, to, percent }: PriceChange): string {
  const by = percent === undefined ? '' : ` (${percent > 0 ? '+' : ''}${String(percent)}%)`;
  return from === '' ? `${column} ${to}` : `${column} ${from} -> ${to === '' ? 'none' : to}${by}`;
}

function keyText({ modelId, region, profile, tier, validFromMs }: Price): string {
  const from = new Date(validFromMs).toISOString().replace('.000Z', 'Z');
  return `${modelId}  ${region}  ${profile}  ${tier}  from ${from}`;
}

function kindsText({ nanoUsdPerMillion }: Price): string {
  return PRICE_KINDS.flatMap((kind) => {
    const nano = nanoUsdPerMillion[kind];
    return nano === undefined ? [] : [`${kind} ${formatDollars(nano)}`];
  }).join(', ');
}

function signedDollars(nanoUsd: bigint): string {
  return nanoUsd < 0n ? `-${formatDollars(-nanoUsd)}` : `+${formatDollars(nanoUsd)}`;
}
