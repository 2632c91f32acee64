import { appendFileSync } from 'node:fs';
import type { Usage } from './wire/answer.ts';
import type { Service } from './wire/errors.ts';
import type { Protocol } from './wire/listener.ts';

/**
 * `completed`: answered to the end, refusals included. `faulted`: a fault rule changed the answer. `cut`: a fault rule broke it off.
 * `client-aborted`: the client left first. `open`: still under way.
 */
export type Outcome = 'open' | 'completed' | 'cut' | 'client-aborted' | 'faulted';

/** One received request, and what became of it. */
export interface JournalEntry {
  readonly seq: number;
  /** ISO 8601, when the whole request had been read. */
  readonly at: string;
  readonly service: Service;
  /** AWS's name, or `Unknown`. */
  readonly operation: string;
  readonly method: string;
  /** Raw path and query, as sent. */
  readonly path: string;
  readonly protocol: Protocol;
  readonly requestId: string;
  /** As claimed; believe it only when `verified`. */
  readonly accessKeyId?: string;
  /** First 16 hex digits of the SHA-256 of the bearer token. */
  readonly bearerFingerprint?: string;
  readonly accountId?: string;
  readonly region?: string;
  readonly modelId?: string;
  /** The signature (or API key) was recomputed and holds. */
  readonly verified: boolean;
  /** Lower-case names; values of credentials replaced by `[present]`. */
  readonly headers: Readonly<Record<string, string>>;
  readonly bodySha256: string;
  readonly bodyBytes: number;
  /** The first 64 KB of the body. */
  readonly bodyBase64: string;
  readonly requestMetadata?: Readonly<Record<string, string>>;
  status?: number;
  errorType?: string;
  /** What AWS would bill; present exactly when `executed`. */
  usage?: Usage;
  /** Whether the numbers of `usage` have been sent to the client in full. */
  usageReported: boolean;
  /** The model ran. */
  executed: boolean;
  /** Whole frames sent. */
  eventsSent: number;
  answerBytes: number;
  answerSha256: string;
  outcome: Outcome;
}

/** What is known on receipt. */
export type Receipt = Omit<
  JournalEntry,
  'seq' | 'at' | 'usageReported' | 'executed' | 'eventsSent' | 'answerBytes' | 'answerSha256' | 'outcome'
>;

export const JOURNAL_BODY_BYTES_MAX = 64 * 1024;

/** Every request in the order of receipt. With a file, a line is on disk before the answer begins and another when it is over. */
export class Journal {
  #entries: JournalEntry[] = [];
  #seq = 0;
  readonly #file: string | undefined;

  constructor(file: string | undefined) {
    this.#file = file;
  }

  get entries(): readonly JournalEntry[] {
    return this.#entries;
  }

  receive(receipt: Receipt): JournalEntry {
    const entry: JournalEntry = {
      seq: ++this.#seq,
      at: new Date().toISOString(),
      ...receipt,
      usageReported: false,
      executed: false,
      eventsSent: 0,
      answerBytes: 0,
      answerSha256: '',
      outcome: 'open',
    };
    this.#entries.push(entry);
    this.#append('received', entry);
    return entry;
  }

  finish(entry: JournalEntry): void {
    this.#append('finished', entry);
  }

  clear(): void {
    this.#entries = [];
  }

  #append(event: 'received' | 'finished', entry: JournalEntry): void {
    if (this.#file !== undefined) appendFileSync(this.#file, `${JSON.stringify({ event, ...entry })}\n`);
  }
}
