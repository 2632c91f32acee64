import { errorFields } from '../observability/logger.ts';
import type { Logger } from '../observability/logger.ts';
import type { LedgerStore } from './ledger-store.ts';
import { LocalSpoolDisk } from './spool-disk.ts';
import { Spool } from './spool.ts';

/** The spool of this process, or none where no directory is set. @throws Error when the directory takes no files. */
export async function openSpool(
  { spoolDirectory, spoolBytesMax }: { spoolDirectory: string | undefined; spoolBytesMax: number },
  parts: { processId: string; store: Pick<LedgerStore, 'settle'>; logger: Logger },
): Promise<Spool | undefined> {
  if (spoolDirectory === undefined) return undefined;
  const { processId, store, logger } = parts;
  const spool = new Spool({
    disk: new LocalSpoolDisk(spoolDirectory),
    processId,
    bytesMax: spoolBytesMax,
    settle: ({ merchantId, id, outcome }) => store.settle(merchantId, id, outcome),
    onProblem: (what, { error, ...facts }) => {
      logger.error(what, { ...facts, ...(error !== undefined && errorFields(error)) });
    },
    onReplayed: (calls) => {
      logger.info('calls settled from the spool', { calls });
    },
  });
  await spool.open();
  return spool;
}
