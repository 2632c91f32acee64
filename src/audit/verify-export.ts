import type { KeyObject } from 'node:crypto';
import { z } from 'zod';
import type { AuditEvent } from './audit.ts';
import { provenShape } from './checkpoint.ts';
import type { ProvenCheckpoint } from './checkpoint.ts';
import { endLine, eventLine } from './export.ts';
import type { ExportEnd } from './export.ts';
import { KnownCheckpoints } from './known-checkpoints.ts';
import { ChainVerifier } from './verify.ts';
import type { AuditFault } from './verify.ts';

const endShape = z.strictObject({
  end: z.literal(true),
  merchantId: z.string(),
  from: z.int(),
  to: z.int(),
  events: z.int(),
  checkpoint: provenShape.nullable(),
});

export interface ExportVerifierOptions {
  /** The public keys that are believed. */
  keys: readonly KeyObject[];
  /** Checkpoints that were kept earlier: what they cover must be in the export, unchanged. One of an event before `from - 1` is compared with nothing. */
  kept?: readonly ProvenCheckpoint[];
  /** Where the first export begins. Default 1: all of the chain. */
  from?: number;
}

/**
 * Checks exports against signed checkpoints, with nothing else: no database, no network. Feed it the lines of one export, or of several that
 * go on where the one before ended. Every line must be, to the byte, as it was written; events must be whole, in order and linked; what is signed
 * must be there, and nothing may be there that is not signed. Memory: one event, and the checkpoints.
 */
export class ExportVerifier {
  readonly #options: ExportVerifierOptions;
  readonly #from: number;
  /** Since the first line, which says whose chain it is. */
  #chain: ChainVerifier | undefined;
  #known: KnownCheckpoints | undefined;
  #merchantId = '';
  /** The last event that a checkpoint confirmed. */
  #confirmed = 0;
  #fileStart: number;
  #inFile = false;

  constructor(options: ExportVerifierOptions) {
    this.#options = options;
    this.#from = options.from ?? 1;
    this.#fileStart = this.#from;
  }

  /** What was read so far. */
  get summary() {
    const [from, to] = [this.#from, this.#last];
    const { number: checkpoint, at, origin } = this.#known?.newest ?? {};
    return { chain: this.#merchantId, from, to, events: to - from + 1, checkpoint, at, origin };
  }

  /** Looks at the next line, without its end. @returns the first fault; after one the rest means nothing. */
  line(text: string): AuditFault | undefined {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return this.#fault('form', 'is no line of an export');
    }
    if (typeof value !== 'object' || value === null) return this.#fault('form', 'is no line of an export');
    const begun = this.#begin(value);
    if (begun !== undefined) return begun;
    return 'end' in value ? this.#end(text, value) : this.#event(text, value as AuditEvent);
  }

  /** To be called after the last line. @returns what is missing. */
  end(): AuditFault | undefined {
    if (this.#inFile || this.#known === undefined)
      return this.#fault('head', 'the export has no last line: it was cut');
    const missing = this.#known.after(this.#last);
    if (missing !== undefined)
      return this.#fault(
        'head',
        `the chain ends here, but a checkpoint signed event ${String(missing)}: the tail was cut`,
        this.#last,
      );
    if (this.#confirmed < this.#last)
      return this.#fault(
        'unsigned',
        'no checkpoint covers this event or those after it',
        this.#confirmed + 1,
      );
    return this.#confirmed === 0 ? this.#fault('unsigned', 'nothing here is signed') : undefined;
  }

  get #last(): number {
    return this.#chain?.length ?? this.#from - 1;
  }

  #event(text: string, event: AuditEvent): AuditFault | undefined {
    this.#inFile = true;
    if (!isEvent(event) || eventLine(event) !== text)
      return this.#fault('form', 'is not written as events are: something was added or changed');
    const fault = this.#chain?.check(event);
    if (fault !== undefined) return fault;
    const before = event.seq === this.#from ? this.#agrees(event.seq - 1, event.prevHash) : undefined;
    return before ?? this.#agrees(event.seq, event.hash);
  }

  #end(text: string, value: object): AuditFault | undefined {
    const { data } = endShape.safeParse(value);
    if (data === undefined || endLine(data satisfies ExportEnd) !== text)
      return this.#fault('form', 'the last line is not written as last lines are');
    const { merchantId, from, to, events, checkpoint } = data;
    const [start, last] = [this.#fileStart, this.#last];
    if (merchantId !== this.#merchantId || from !== start || to !== last || events !== last - start + 1)
      return this.#fault('head', 'the last line speaks of other events than those before it', last);
    this.#inFile = false;
    this.#fileStart = last + 1;
    if (checkpoint === null) return undefined;
    const fault = this.#believe(checkpoint);
    if (fault !== undefined || checkpoint.leaf.seq >= last) return fault;
    return this.#fault('unsigned', 'its checkpoint does not reach this far', checkpoint.leaf.seq + 1);
  }

  /** With the first line the chain has a name, and the checkpoints that were kept can be looked at. */
  #begin(line: object): AuditFault | undefined {
    if (this.#chain !== undefined) return undefined;
    this.#merchantId = 'merchantId' in line && typeof line.merchantId === 'string' ? line.merchantId : '';
    this.#chain = new ChainVerifier(this.#merchantId, this.#from);
    this.#known = new KnownCheckpoints(this.#merchantId, this.#options.keys);
    for (const checkpoint of this.#options.kept ?? []) {
      const fault = this.#believe(checkpoint);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }

  #believe(checkpoint: ProvenCheckpoint): AuditFault | undefined {
    const { seq } = checkpoint.leaf;
    const problem = this.#known?.add(checkpoint);
    if (problem !== undefined)
      return this.#fault('checkpoint', `the checkpoint is not to be believed: ${problem}`, seq);
    const here = this.#chain?.hash;
    return seq === this.#last && here !== undefined ? this.#agrees(seq, here) : undefined;
  }

  #agrees(seq: number, hash: string): AuditFault | undefined {
    const signed = this.#known?.hashOf(seq);
    if (signed === undefined) return undefined;
    if (signed !== hash)
      return this.#fault(
        'head',
        `is not the event that was signed: the chain was rewritten after event ${String(this.#confirmed)}`,
        seq,
      );
    this.#confirmed = Math.max(this.#confirmed, seq);
    return undefined;
  }

  #fault(fault: AuditFault['fault'], detail: string, seq = this.#last + 1): AuditFault {
    return { merchantId: this.#merchantId, seq, fault, detail };
  }
}

const HASH = /^[0-9a-f]{64}$/;

/** Enough to hash it without two texts giving the same bytes; eventLine() compares the rest. */
function isEvent(event: AuditEvent): boolean {
  const { seq, ...texts } = event;
  return (
    Number.isSafeInteger(seq) &&
    Object.values(texts).every((text) => typeof text === 'string' && isWellFormed(text)) &&
    HASH.test(event.prevHash)
  );
}

/** Half of a surrogate pair would be hashed as U+FFFD. */
function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}
