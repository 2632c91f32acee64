import { createHash } from 'node:crypto';
import type { CallId, MerchantId } from '../domain/ids.ts';
import type { CallOutcome } from '../domain/usage.ts';

/** One settlement that Postgres has not taken yet: ids, counts and statuses, nothing that a caller or a model wrote. */
export interface SpoolEntry {
  merchantId: MerchantId;
  id: CallId;
  outcome: CallOutcome;
}

/** What a spool file holds. */
export interface SpoolContents {
  entries: SpoolEntry[];
  /** Whole lines that are not what was written. */
  corrupt: Buffer[];
}

const VERSION = 1;
const LINE_FEED = 0x0a;

/** One line of JSON, its line feed with it: `{"v": 1, "sum": <first 16 hex digits of SHA-256 of the entry>, "entry": …}`. */
export function encodeLine(entry: SpoolEntry): Buffer {
  const text = JSON.stringify(entry);
  return Buffer.from(`{"v":${String(VERSION)},"sum":"${sumOf(text)}","entry":${text}}\n`);
}

/**
 * Reads a spool file. What stands after the last line feed was torn off by a crash before its fsync: nobody was told that it was kept, so it
 * is left out without a word.
 */
export function decodeLines(bytes: Buffer): SpoolContents {
  const contents: SpoolContents = { entries: [], corrupt: [] };
  let start = 0;
  for (let end = bytes.indexOf(LINE_FEED); end !== -1; end = bytes.indexOf(LINE_FEED, start)) {
    const line = bytes.subarray(start, end);
    const entry = decodeLine(line.toString('utf8'));
    if (entry === undefined) contents.corrupt.push(line);
    else contents.entries.push(entry);
    start = end + 1;
  }
  return contents;
}

function decodeLine(line: string): SpoolEntry | undefined {
  try {
    const { v, sum, entry } = JSON.parse(line) as { v: unknown; sum: unknown; entry: SpoolEntry };
    return v === VERSION && sum === sumOf(JSON.stringify(entry)) ? entry : undefined;
  } catch {
    return undefined;
  }
}

/** Finds accidents, not forgeries: whoever can write the file can write the database's password's place too. */
function sumOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
