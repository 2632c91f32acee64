import { createHash } from 'node:crypto';
import type { AuditEvent } from './audit.ts';

/** Where a chain stops being what was written. */
export interface AuditFault {
  merchantId: string;
  seq: number;
  fault: 'sequence' | 'link' | 'hash' | 'head';
  detail: string;
}

const GENESIS = '00'.repeat(32);

/** A hashed field is its length in bytes (4 bytes, big endian) and its UTF-8 bytes, as audit_field() in prisma/migrations. */
function field(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** The hash an event must have: SHA-256 over its fields and the hash before it. The twin of audit_append(). */
export function hashOf(event: Omit<AuditEvent, 'hash' | 'at'>): string {
  const hash = createHash('sha256').update('mbk-audit-v1');
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
  for (const text of fields) hash.update(field(text));
  return hash.update(Buffer.from(event.prevHash, 'hex')).digest('hex');
}

/**
 * Checks a chain event by event, in order; feed it pages of any size. Finds edits, deletions, insertions, swaps, and, by `end`, a cut tail.
 */
export class ChainVerifier {
  readonly #merchantId: string;
  #seq = 0;
  #hash = GENESIS;

  constructor(merchantId: string) {
    this.#merchantId = merchantId;
  }

  get length(): number {
    return this.#seq;
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
