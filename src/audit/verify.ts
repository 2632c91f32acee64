import { createHash } from 'node:crypto';
import type { AuditEvent } from './audit.ts';
import { field } from './merkle.ts';

/** Where a chain stops being what was written. */
export interface AuditFault {
  merchantId: string;
  seq: number;
  fault: 'sequence' | 'link' | 'hash' | 'head' | 'form' | 'checkpoint' | 'unsigned';
  detail: string;
}

/** What the first of anything follows from: 32 zero bytes. */
export const GENESIS = '00'.repeat(32);
const FORMAT = Buffer.from('mbk-audit-v1');

/** The hash an event must have: SHA-256 over its fields and the hash before it. The twin of audit_append(). */
export function hashOf(event: Omit<AuditEvent, 'hash' | 'at'>): string {
  const fields = [
    event.merchantId,
    String(event.seq),
    event.atMicros,
    event.actor,
    event.action,
    event.resource,
    event.outcome,
    event.requestId,
    event.body,
  ];
  // One piece: a million events have ten million fields.
  const bytes = Buffer.concat([FORMAT, ...fields.map(field), Buffer.from(event.prevHash, 'hex')]);
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * Checks a chain event by event, in order; feed it pages of any size. Finds edits, deletions, insertions, swaps, and, by `end`, a cut tail.
 */
export class ChainVerifier {
  readonly #merchantId: string;
  #seq: number;
  /** Undefined: what is before the first event is not looked at. */
  #hash: string | undefined;

  /** @param from where the events begin; the link of the first one to what was before it can be checked from 1 on only. */
  constructor(merchantId: string, from = 1) {
    this.#merchantId = merchantId;
    this.#seq = from - 1;
    this.#hash = from === 1 ? GENESIS : undefined;
  }

  /** The sequence number that was reached. */
  get length(): number {
    return this.#seq;
  }

  /** The hash that was reached. */
  get hash(): string | undefined {
    return this.#hash;
  }

  /** @returns the first fault, or undefined. After a fault the rest means nothing. */
  check(event: AuditEvent): AuditFault | undefined {
    const fault = (kind: AuditFault['fault'], detail: string): AuditFault => ({
      merchantId: this.#merchantId,
      seq: event.seq,
      fault: kind,
      detail,
    });
    if (event.merchantId !== this.#merchantId) return fault('sequence', 'an event of another chain');
    if (event.seq !== this.#seq + 1)
      return fault(
        'sequence',
        `expected event ${String(this.#seq + 1)}: events are missing, repeated or out of order`,
      );
    this.#hash ??= event.prevHash;
    if (event.prevHash !== this.#hash) return fault('link', 'does not follow from the event before it');
    if (event.hash !== hashOf(event)) return fault('hash', 'was changed after it was written');
    // The hash covers the microseconds; `at` only repeats them for people, who would believe it.
    const time = new Date(Number(event.atMicros) / 1_000);
    if (Number.isNaN(time.getTime()) || event.at !== time.toISOString())
      return fault('hash', 'shows another time than the one it was written at');
    this.#seq = event.seq;
    this.#hash = event.hash;
    return undefined;
  }

  /** Compares the end with the head that the database keeps: a cut tail shows here. */
  end(head: { seq: number; hash: string } | undefined): AuditFault | undefined {
    const expected = head ?? { seq: 0, hash: GENESIS };
    if (expected.seq === this.#seq && expected.hash === this.#hash) return undefined;
    return {
      merchantId: this.#merchantId,
      seq: this.#seq,
      fault: 'head',
      detail: `the chain ends at ${String(this.#seq)}, its head says ${String(expected.seq)}`,
    };
  }
}
