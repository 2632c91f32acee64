/** The price book: what a file would change, its import once that was approved, and rating calls again. */
import { diffPrices } from '../src/ledger/price-diff.ts';
import { writePriceFile } from '../src/ledger/price-file.ts';
import { administrator } from './cli/admin-database.ts';
import { atPriceDesk, importPrices, readPriceFile } from './cli/price-book.ts';
import { readOrder } from './cli/prices-order.ts';
import type { PricesOrder } from './cli/prices-order.ts';
import { countsText, diffText, priceText, reratedText } from './cli/prices-shown.ts';
import { Failure, print, run } from './cli/run.ts';

const HELP = `Usage: npm run prices -- diff FILE
       npm run prices -- import FILE --approve DIGEST
       npm run prices -- list [--model ID]
       npm run prices -- export
       npm run prices -- rerate --from TIME --to TIME --reason TEXT [--merchant ID] [--dry-run]

The prices by which calls are charged, in US dollars for a million tokens (images, requests). A file is CSV and is the whole book: what is
missing in it is withdrawn. prisma/prices.csv is a book to start with; compare it with what AWS charges you.

  diff FILE          shows what the file would change, in percent, and the digest of it
  import FILE        imports the file; running services know it within seconds
    --approve DIGEST   as diff printed it: what changes is that and nothing else
  list               shows the book, by model; prices of the past and of the future too
    --model ID         of this foundation model only, without us., eu., global.
  export             prints the book as a file
  rerate             compares calls with the prices that are in force now for their moment, and writes down the differences. The calls
                     themselves and their limits stay as they are. Safe to repeat: a second time there is nothing to do
    --from, --to TIME  calls that began from the first moment on and before the second: 2026-01-31 or 2026-01-31T09:30:00Z, UTC
    --merchant ID      of this merchant only (default: all)
    --reason TEXT      why, kept with each correction and in the audit trail
    --dry-run          counts, and writes nothing
  --help, -h         prints this

From the environment or .env
  DATABASE_ADMIN_URL   postgres:// URL of a login that owns the tables, as for npm run migrate

Examples
  npm run prices -- diff prisma/prices.csv
  npm run --silent prices -- export > prices.csv
  npm run prices -- rerate --from 2026-01-01 --to 2026-02-01 --reason "invoice of January" --dry-run

Exit code: 0 done; 1 refused, not approved or not reached; 2 bad input, all of it listed.
`;

/** read arguments -> work on the book -> print */
async function main(): Promise<void> {
  const order = readOrder(process.argv.slice(2));
  switch (order.command) {
    case 'help':
      return print(HELP, '');
    case 'diff':
      return diff(order);
    case 'import':
      return importFile(order);
    case 'list':
      return list(order);
    case 'export':
      return exportBook(order);
    case 'rerate':
      return rerate(order);
  }
}

type Order<Command> = PricesOrder & { command: Command };

async function diff({ adminUrl, file }: Order<'diff'>): Promise<void> {
  const next = readPriceFile(file);
  const found = await atPriceDesk(adminUrl, 'Not compared.', async ({ prices }) =>
    diffPrices(await prices.all(), next),
  );
  const counts = countsText({
    added: found.added.length,
    changed: found.changed.length,
    removed: found.removed.length,
  });
  await print(`${diffText(found)}${counts}\ndigest ${found.digest}\n`, '');
}

async function importFile({ adminUrl, file, digest }: Order<'import'>): Promise<void> {
  const next = readPriceFile(file);
  const { imported, diff } = await atPriceDesk(adminUrl, 'Not imported.', (desk) =>
    importPrices(desk, next, digest),
  );
  const touched = [...diff.added, ...diff.changed].map(({ price }) => price).concat(diff.removed);
  const since = Math.min(...touched.map(({ validFromMs }) => validFromMs));
  const hint =
    since < Date.now()
      ? `Calls since ${new Date(since).toISOString()} may have been charged by other prices: npm run prices -- rerate\n`
      : '';
  await print(`Imported: ${countsText(imported)}.\n${hint}`, 'The file was imported all the same.');
}

async function list({ adminUrl, modelId }: Order<'list'>): Promise<void> {
  const book = await atPriceDesk(adminUrl, 'Not listed.', ({ prices }) => prices.all());
  const listed = book.filter((price) => modelId === undefined || price.modelId === modelId);
  await print(listed.length === 0 ? 'There are no prices.\n' : listed.map(priceText).join(''), '');
}

async function exportBook({ adminUrl }: Order<'export'>): Promise<void> {
  const book = await atPriceDesk(adminUrl, 'Not exported.', ({ prices }) => prices.all());
  await print(writePriceFile(book), '');
}

/** Each merchant by itself and in pages: no lock lasts, and what was done before a failure is done. */
async function rerate({ adminUrl, merchantId, order }: Order<'rerate'>): Promise<void> {
  const ifFailed = order.dryRun
    ? 'Not counted to the end.'
    : 'Not rated to the end; what was printed is done, and running it again does the rest.';
  await atPriceDesk(adminUrl, ifFailed, async ({ admin }) => {
    const merchants = merchantId === undefined ? admin.merchants(order) : [merchantId];
    const sum = { calls: 0, corrected: 0, deltaNanoUsd: 0n, withoutPrice: 0 };
    for await (const one of merchants) {
      const rerated = await admin.rerate(administrator(), one, order);
      if (rerated === undefined) throw new Failure(`There is no merchant ${one}.`);
      sum.calls += rerated.calls;
      sum.corrected += rerated.corrected;
      sum.deltaNanoUsd += rerated.deltaNanoUsd;
      sum.withoutPrice += rerated.withoutPrice;
      await print(`${one}: ${reratedText(rerated)}\n`, ifFailed);
    }
    await print(`${order.dryRun ? 'In all it would be' : 'In all'}: ${reratedText(sum)}\n`, '');
  });
}

run('prices', 'Not done', main);
