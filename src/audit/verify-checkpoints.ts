import type { KeyObject } from 'node:crypto';
import type { StoredCheckpoint, StoredLeaf } from './checkpoint-store.ts';
import { checkSigned, readPublicKey } from './checkpoint.ts';
import type { SignedCheckpoint } from './checkpoint.ts';
import { sha256 } from './known-checkpoints.ts';
import { leafHash, rootOf, saltOf } from './merkle.ts';
import type { AuditFault } from './verify.ts';

const GENESIS = '00'.repeat(32);
/** Leaves that are hashed at most, unless all are asked for: some seconds and 32 MB. */
const LEAVES_MAX = 1_000_000;

export interface StoredCheckpointsOptions {
  /** The public keys that are believed. Absent: those that the checkpoints themselves name, which proves little against who owns the database. */
  keys?: readonly KeyObject[];
  /** Copies that were kept elsewhere: the database must have the same. */
  kept?: readonly SignedCheckpoint[];
  /** Recompute every root, however many. */
  allRoots?: boolean;
}

interface Sample {
  number: number;
  blind: Buffer;
  root: string;
  leaves: Buffer[];
}

/**
 * Checks the checkpoints that a database holds, and all chains against them. First all checkpoints, in order; then `choose`; then each chain, with its
 * leaves in order; then `end`.
 */
export class StoredCheckpointsVerifier {
  readonly #options: StoredCheckpointsOptions;
  readonly #kept: Map<number, string>;
  #count = 0;
  #hash = GENESIS;
  #at = '';
  #chains = 0;
  #samples: Sample[] = [];

  constructor(options: StoredCheckpointsOptions = {}) {
    this.#options = options;
    this.#kept = new Map((options.kept ?? []).map(({ body }) => [numberIn(body), body]));
  }

  get summary() {
    return { checkpoints: this.#count, roots: this.#samples.length };
  }

  /** The next checkpoint. @returns the first fault; after one the rest means nothing. */
  check(stored: StoredCheckpoint): AuditFault | undefined {
    const { number, body: text, blind } = stored;
    const checked = checkSigned(stored, this.#options.keys ?? [readPublicKey(stored.publicKey)]);
    if (checked.problem !== undefined) return fault(number, checked.problem);
    const { body } = checked;
    if (number !== this.#count + 1 || body.number !== number)
      return fault(number, `expected checkpoint ${String(this.#count + 1)}: one is missing or renumbered`);
    if (body.previous !== this.#hash) return fault(number, 'it does not follow from the one before it');
    if (body.at < this.#at) return fault(number, 'it is earlier than the one before it');
    const kept = this.#kept.get(number);
    if (kept !== undefined && kept !== text)
      return fault(number, 'it is not the one that was kept elsewhere under this number');
    this.#count = number;
    this.#hash = sha256(text);
    this.#at = body.at;
    this.#chains = Math.max(this.#chains, body.chains);
    this.#samples.push({ number, blind, root: body.root, leaves: [] });
    return undefined;
  }

  /** After the last checkpoint: chooses the roots to recompute: the newest, those that were kept, and as many others as there is room for, evenly spread. */
  choose(): AuditFault | undefined {
    const ahead = [...this.#kept.keys()].find((number) => number > this.#count);
    if (ahead !== undefined)
      return fault(
        ahead,
        'it was kept elsewhere and the database does not have it: the database went back in time',
      );
    const room = Math.max(1, Math.floor(LEAVES_MAX / Math.max(1, this.#chains)));
    const step = this.#options.allRoots === true ? 1 : Math.ceil(this.#count / room);
    this.#samples = this.#samples.filter(
      ({ number }) => (this.#count - number) % step === 0 || this.#kept.has(number),
    );
    return undefined;
  }

  /** A chain and all of its leaves, in the order of their checkpoints. */
  chain(merchantId: string): { leaf: (leaf: StoredLeaf) => AuditFault | undefined; end: () => void } {
    let at = 0;
    let last: StoredLeaf | undefined;
    const upTo = (number: number) => {
      for (let sample = this.#samples[at]; sample && sample.number < number; sample = this.#samples[at]) {
        if (last !== undefined)
          sample.leaves.push(leafHash({ merchantId, ...last, salt: saltOf(sample.blind, merchantId) }));
        at += 1;
      }
    };
    return {
      leaf: (leaf) => {
        upTo(leaf.number);
        if (last !== undefined && leaf.seq <= last.seq)
          return {
            ...fault(leaf.number, `the chain was further at checkpoint ${String(last.number)}`),
            merchantId,
            seq: leaf.seq,
          };
        last = leaf;
        return undefined;
      },
      end: () => {
        upTo(Infinity);
      },
    };
  }

  /** After all chains: whether the roots that were signed are those of the chains. */
  end(): AuditFault | undefined {
    for (const { number, root, leaves } of this.#samples) {
      if (rootOf(leaves)?.toString('hex') !== root)
        return fault(number, 'its root is not that of the chains: leaves were changed, removed or added');
    }
    return undefined;
  }
}

/** For a fault of a checkpoint, `seq` is its number. */
function fault(number: number, detail: string): AuditFault {
  return { merchantId: '~checkpoints', seq: number, fault: 'checkpoint', detail };
}

function numberIn(body: string): number {
  return Number((JSON.parse(body) as { number?: unknown }).number);
}
