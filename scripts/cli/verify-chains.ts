import type { AuditStore } from '../../src/audit/audit-store.ts';
import type { CheckpointStore, StoredLeaf } from '../../src/audit/checkpoint-store.ts';
import { ChainVerifier } from '../../src/audit/verify.ts';
import type { AuditFault } from '../../src/audit/verify.ts';
import { StoredCheckpointsVerifier } from '../../src/audit/verify-checkpoints.ts';
import type { StoredCheckpointsOptions } from '../../src/audit/verify-checkpoints.ts';
import { SYSTEM_CHAIN } from '../../src/domain/audit.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import type { MerchantStore } from '../../src/merchants/merchant-store.ts';

const PAGE = 1_000;

export interface ChainResult {
  chain: string;
  events: number;
  fault: AuditFault | undefined;
}

/** What checkpoints say; only where there are any. */
export interface CheckpointResult {
  /** The deployment that they name; undefined where there is none. */
  origin: string | undefined;
  checkpoints: number;
  /** How many were held against the chains. */
  roots: number;
  fault: AuditFault | undefined;
}

interface Stores {
  audit: Pick<AuditStore, 'page'>;
  checkpoints: Pick<CheckpointStore, 'page' | 'leaves' | 'leafAt'>;
  merchants: Pick<MerchantStore, 'list'>;
}

/** Checks all chains of a database, or one, and its checkpoints: a result for each chain, and one for the checkpoints at the end. */
export async function* verifyDatabase(
  { audit, checkpoints, merchants }: Stores,
  options: StoredCheckpointsOptions & { merchant?: string | undefined },
): AsyncGenerator<ChainResult | CheckpointResult> {
  const verifier = new StoredCheckpointsVerifier(options);
  let fault = (await checkStored(checkpoints, verifier)) ?? noneAtAll(verifier, options);
  const chains = options.merchant === undefined ? chainsOf(merchants) : [options.merchant];
  let whole = options.merchant === undefined;
  for await (const chain of chains) {
    const result = await verifyChain(audit, chain, new SignedAlong(checkpoints, chain, verifier));
    if (result.fault !== undefined) whole = false;
    yield result;
  }
  // Roots are of all chains: one alone has none, and a broken one has been told.
  if (whole) fault ??= verifier.end() ?? (await checkOtherRoots({ checkpoints, merchants }, verifier));
  const { summary } = verifier;
  if (summary.checkpoints === 0 && fault === undefined) return;
  yield { ...summary, ...(!whole && { roots: 0 }), fault };
}

/** Who gives a key knows that there were checkpoints. */
function noneAtAll(
  { summary }: StoredCheckpointsVerifier,
  { keys }: StoredCheckpointsOptions,
): AuditFault | undefined {
  if (summary.checkpoints > 0 || keys === undefined) return undefined;
  return {
    merchantId: '~checkpoints',
    seq: 0,
    fault: 'checkpoint',
    detail: 'none is there: they are off, none was made yet, or all were removed',
  };
}

/** The roots that the first walk had no room for. The leaves of all chains were found to be theirs by then. */
async function checkOtherRoots(
  { checkpoints, merchants }: Pick<Stores, 'checkpoints' | 'merchants'>,
  verifier: StoredCheckpointsVerifier,
): Promise<AuditFault | undefined> {
  for (let span = verifier.next(); span !== undefined; span = verifier.next()) {
    for await (const chain of chainsOf(merchants)) {
      const after = (await checkpoints.leafAt(chain as MerchantId, span.from)) - 1;
      const roots = verifier.chain(chain);
      for await (const leaf of leavesOf(checkpoints, chain, { after, upTo: span.to })) {
        const wrong = roots.leaf(leaf);
        if (wrong !== undefined) return wrong;
      }
      roots.end();
    }
    const fault = verifier.end();
    if (fault !== undefined) return fault;
  }
  return undefined;
}

async function checkStored(
  store: Pick<CheckpointStore, 'page'>,
  verifier: StoredCheckpointsVerifier,
): Promise<AuditFault | undefined> {
  for (let after = 0; ;) {
    const page = await store.page(after, PAGE);
    for (const stored of page) {
      const fault = verifier.check(stored);
      if (fault !== undefined) return fault;
    }
    if (page.length < PAGE) return verifier.choose();
    after = page.at(-1)?.number ?? after;
  }
}

/** Checks one chain from its first event to its head, and against what checkpoints said of it. */
export async function verifyChain(
  audit: Pick<AuditStore, 'page'>,
  chain: string,
  signed?: SignedAlong,
): Promise<ChainResult> {
  const verifier = new ChainVerifier(chain);
  for (;;) {
    const { events, head } = await audit.page(chain as MerchantId, verifier.length, PAGE);
    for (const event of events) {
      const fault = verifier.check(event) ?? (await signed?.at(event.seq, event.hash));
      if (fault !== undefined) return { chain, events: verifier.length, fault };
    }
    if (events.length < PAGE) {
      const fault = verifier.end(head) ?? emptiness(chain, verifier.length);
      return { chain, events: verifier.length, fault: fault ?? (await signed?.end(verifier.length)) };
    }
  }
}

/** Walks along a chain's leaves while somebody walks along its events. */
class SignedAlong {
  readonly #chain: string;
  readonly #leaves: AsyncGenerator<StoredLeaf>;
  readonly #roots: ReturnType<StoredCheckpointsVerifier['chain']>;
  #next: IteratorResult<StoredLeaf, undefined> | undefined;

  constructor(store: Stores['checkpoints'], chain: string, roots: StoredCheckpointsVerifier) {
    this.#chain = chain;
    this.#leaves = leavesOf(store, chain, { after: 0, upTo: roots.summary.checkpoints });
    this.#roots = roots.chain(chain);
  }

  async at(seq: number, hash: string): Promise<AuditFault | undefined> {
    this.#next ??= await this.#leaves.next();
    const leaf = this.#next.value;
    if (leaf === undefined || leaf.seq > seq) return undefined;
    const wrong = this.#roots.leaf(leaf);
    if (wrong !== undefined) return wrong;
    if (leaf.hash !== hash)
      return this.#fault(seq, `is not the event that checkpoint ${String(leaf.number)} signed`);
    this.#next = undefined;
    // A second leaf of the same event is a chain that stood still or went back.
    return this.at(seq, hash);
  }

  async end(length: number): Promise<AuditFault | undefined> {
    this.#next ??= await this.#leaves.next();
    const leaf = this.#next.value;
    this.#roots.end();
    if (leaf === undefined) return undefined;
    return this.#fault(
      length,
      `the chain ends here, but checkpoint ${String(leaf.number)} signed event ${String(leaf.seq)}`,
    );
  }

  #fault(seq: number, detail: string): AuditFault {
    return { merchantId: this.#chain, seq, fault: 'head', detail };
  }
}

/** Leaves of the checkpoints that were checked: while we look, others may be made. */
async function* leavesOf(
  store: Stores['checkpoints'],
  chain: string,
  { after: start, upTo }: { after: number; upTo: number },
): AsyncGenerator<StoredLeaf, undefined> {
  for (let after = start; after < upTo;) {
    const page = await store.leaves(chain as MerchantId, after, PAGE);
    yield* page.filter(({ number }) => number <= upTo);
    if (page.length < PAGE) return undefined;
    after = page.at(-1)?.number ?? upTo;
  }
  return undefined;
}

/** A merchant has at least the event of its creation. Only the operators' chain may be empty. */
function emptiness(chain: string, events: number): AuditFault | undefined {
  if (events > 0 || chain === SYSTEM_CHAIN) return undefined;
  return {
    merchantId: chain,
    seq: 0,
    fault: 'head',
    detail: 'the chain is empty: all of its events are gone',
  };
}

async function* chainsOf(merchants: Pick<MerchantStore, 'list'>): AsyncGenerator<string> {
  yield SYSTEM_CHAIN;
  let after = '';
  for (;;) {
    const { items, nextCursor } = await merchants.list(PAGE, after);
    for (const merchant of items) yield merchant.id;
    if (nextCursor === undefined) return;
    after = nextCursor;
  }
}
