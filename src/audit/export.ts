import type { MerchantId } from '../domain/ids.ts';
import type { AuditStore } from './audit-store.ts';
import type { AuditEvent } from './audit.ts';
import type { ProvenCheckpoint } from './checkpoint.ts';

/** Events that are in memory at one time. */
const PAGE = 500;

/** What an export holds: events `from`..`to`, both with it; `to` below `from` is none. */
export interface ExportSpan {
  chain: MerchantId;
  from: number;
  to: number;
}

/** The last line of an export: by it a reader knows that it has all, and who says so. */
export interface ExportEnd {
  end: true;
  merchantId: string;
  from: number;
  to: number;
  events: number;
  /** Null where there is none: then nothing but the chain itself says that this is what was written. */
  checkpoint: ProvenCheckpoint | null;
}

/**
 * An audit chain as JSON lines, a piece for each page: an event a line, in order, and then the end. Only one page is in memory.
 * @throws Error when the chain has not all events of the span: what is not whole must not look whole.
 */
export async function* auditExport(
  store: Pick<AuditStore, 'page'>,
  { chain, from, to }: ExportSpan,
  checkpoint: ProvenCheckpoint | undefined,
): AsyncGenerator<string> {
  let last = from - 1;
  while (last < to) {
    const { events } = await store.page(chain, last, Math.min(PAGE, to - last));
    if (events.length === 0 || events.some(({ seq }, index) => seq !== last + 1 + index))
      throw new Error('the audit chain lacks events that were to be exported');
    yield events.map((event) => `${eventLine(event)}\n`).join('');
    last = events.at(-1)?.seq ?? to;
  }
  const count = Math.max(0, to - from + 1);
  const end: ExportEnd = {
    end: true,
    merchantId: chain,
    from,
    to,
    events: count,
    checkpoint: checkpoint ?? null,
  };
  yield `${endLine(end)}\n`;
}

/** One way to write an event, so that a reader can tell any other. */
export function eventLine(event: AuditEvent): string {
  const { merchantId, seq, atMicros, at, actor, action, resource, outcome, requestId, body, prevHash, hash } =
    event;
  return JSON.stringify({
    merchantId,
    seq,
    atMicros,
    at,
    actor,
    action,
    resource,
    outcome,
    requestId,
    body,
    prevHash,
    hash,
  });
}

export function endLine({ merchantId, from, to, events, checkpoint }: ExportEnd): string {
  return JSON.stringify({ end: true, merchantId, from, to, events, checkpoint: ordered(checkpoint) });
}

function ordered(checkpoint: ProvenCheckpoint | null) {
  if (checkpoint === null) return null;
  const { body, signature, keyId, publicKey, leaf } = checkpoint;
  const { merchantId, seq, hash, salt, index, path } = leaf;
  return { body, signature, keyId, publicKey, leaf: { merchantId, seq, hash, salt, index, path } };
}
