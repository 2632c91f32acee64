import { readFileSync } from 'node:fs';
import type { Secret } from '../../src/domain/secret.ts';
import { PriceAdminStore } from '../../src/ledger/price-admin-store.ts';
import type { Imported } from '../../src/ledger/price-admin-store.ts';
import { diffPrices } from '../../src/ledger/price-diff.ts';
import { parsePriceFile } from '../../src/ledger/price-file.ts';
import type { PriceDiff } from '../../src/ledger/price-diff.ts';
import { PriceStore } from '../../src/ledger/price-store.ts';
import type { Price } from '../../src/ledger/price.ts';
import { administrator, withAdminDatabase } from './admin-database.ts';
import { Failure, nameOf, shown, UsageError } from './run.ts';

/** Reports over a whole book, and a page of re-rating, take longer than a request may. */
const STATEMENT_TIMEOUT_MS = 60_000;

/** The price book as an administrator reaches it. */
export interface PriceDesk {
  prices: PriceStore;
  admin: PriceAdminStore;
}

/** @param ifFailed the first words of what is said when the database refuses or is away. @throws Failure */
export function atPriceDesk<T>(
  adminUrl: Secret,
  ifFailed: string,
  work: (desk: PriceDesk) => Promise<T>,
): Promise<T> {
  return withAdminDatabase(adminUrl, { ifFailed, statementTimeoutMs: STATEMENT_TIMEOUT_MS }, (database) =>
    work({ prices: new PriceStore(database), admin: new PriceAdminStore(database) }),
  );
}

/** The prices of a file. @throws UsageError with every problem of it, each with its line. */
export function readPriceFile(file: string): Price[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError([`the file cannot be read (${nameOf(error)})`]);
  }
  const { prices, problems } = parsePriceFile(text);
  if (problems.length > 0) throw new UsageError(problems.map((problem) => shown(problem)));
  return prices;
}

/**
 * Makes the file's prices the whole book, if what that changes is what was approved.
 * @throws Failure when it is not, or somebody else imported at the same time: then nothing was imported.
 */
export async function importPrices(
  { prices, admin }: PriceDesk,
  next: readonly Price[],
  approved: string,
): Promise<{ imported: Imported; diff: PriceDiff }> {
  // Before the book is read: an import in between makes the version an old one.
  const version = await admin.bookVersion();
  const diff = diffPrices(await prices.all(), next);
  if (diff.digest !== approved)
    throw new Failure(
      `Not imported: what would change is not what was approved. Its digest is ${diff.digest}; look at it with diff.`,
    );
  const imported = await admin.import(administrator(), next, { version, digest: approved });
  if (imported === undefined)
    throw new Failure(
      'Not imported: somebody else changed the price book at this moment. Look at diff again.',
    );
  return { imported, diff };
}
