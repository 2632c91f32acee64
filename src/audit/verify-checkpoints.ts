import type { KeyObject } from 'node:crypto';
import type { StoredCheckpoint, StoredLeaf } from './checkpoint-store.ts';
import { checkSigned, parseBody, readPublicKey } from './checkpoint.ts';
import type { CheckpointBody, SignedCheckpoint } from './checkpoint.ts';
import { sha256 } from './known-checkpoints.ts';
import { RootBook, RootWindow } from './root-window.ts';
import { GENESIS } from './verify.ts';
import type { AuditFault } from './verify.ts';

/** Leaf hashes that are held at one time: 32 MB, and about ten seconds of a core to make. */
const LEAVES_MAX = 1_000_000;

export interface StoredCheckpointsOptions {
  /** The public keys that are believed. Absent: those that the checkpoints themselves name, which proves little against who owns the database. */
  keys?: readonly KeyObject[];
  /** Copies that were kept elsewhere: the database must have the same. */
  kept?: readonly SignedCheckpoint[];
  /** Recompute every root, however many: as many walks along all leaves as the room for their hashes asks for. */
  allRoots?: boolean;
  /** Leaf hashes that are held at one time. Default a million. */
  leavesMax?: number;
}

/**
 * Checks the checkpoints that a database holds, and all chains against them. First all checkpoints, in order; then `choose`; then each chain, with its
 * leaves in order; then `end`; and as long as `next` says so, each chain's leaves of that span once more, and `end`. Memory: the hashes of `leavesMax`
 * leaves, and 68 bytes for each checkpoint.
 */
export class StoredCheckpointsVerifier {
  readonly #options: StoredCheckpointsOptions;
  readonly #kept = new Map<number, string[]>();
  readonly #book = new RootBook();
  #hash = GENESIS;
  #at = '';
  #origin: string | undefined;
  #chains = 0;
  /** Whose roots are recomputed, ascending, and how many of them were by the end of this walk. */
  #chosen: number[] = [];
  #done = 0;
  #window = new RootWindow(this.#book, []);

  /** @throws TypeError when what was kept is not a checkpoint. */
  constructor(options: StoredCheckpointsOptions = {}) {
    this.#options = options;
    for (const { body } of options.kept ?? []) {
      const number = parseBody(body)?.number;
      if (number === undefined) throw new TypeError('what was kept is not a checkpoint');
      this.#kept.set(number, [...(this.#kept.get(number) ?? []), body]);
    }
  }

  get summary() {
    return { origin: this.#origin, checkpoints: this.#book.count, roots: this.#chosen.length };
  }

  /** The next checkpoint. @returns the first fault; after one the rest means nothing. */
  check(stored: StoredCheckpoint): AuditFault | undefined {
    const { number, body: text, blind } = stored;
    const keys = this.#options.keys ?? keyOf(stored);
    const checked = keys === undefined ? { problem: 'its public key is none' } : checkSigned(stored, keys);
    if (checked.problem !== undefined) return fault(number, checked.problem);
    const { body } = checked;
    const problem = this.#misplaced(number, body) ?? this.#unlikeKept(number, text);
    if (problem !== undefined) return fault(number, problem);
    this.#hash = sha256(text);
    this.#at = body.at;
    this.#origin = body.origin;
    this.#chains = body.chains;
    this.#book.push({ blind, root: body.root, chains: body.chains });
    return undefined;
  }

  /** After the last checkpoint: chooses the roots to recompute: the newest, those that were kept, and as many others as there is room for, evenly spread. */
  choose(): AuditFault | undefined {
    const { count } = this.#book;
    const ahead = [...this.#kept.keys()].find((number) => number > count);
    if (ahead !== undefined)
      return fault(
        ahead,
        'it was kept elsewhere and the database does not have it: the database went back in time',
      );
    const room = Math.max(1, Math.floor(this.#leavesMax / Math.max(1, this.#chains)));
    const step = this.#options.allRoots === true ? 1 : Math.ceil(count / room);
    for (let number = 1; number <= count; number += 1)
      if ((count - number) % step === 0 || this.#kept.has(number)) this.#chosen.push(number);
    this.next();
    return undefined;
  }

  /** A chain and its leaves, in the order of their checkpoints. */
  chain(merchantId: string): { leaf: (leaf: StoredLeaf) => AuditFault | undefined; end: () => void } {
    const walk = this.#window.walk(merchantId);
    let last: StoredLeaf | undefined;
    return {
      leaf: (leaf) => {
        if (last !== undefined && leaf.seq <= last.seq)
          return {
            ...fault(leaf.number, `the chain was further at checkpoint ${String(last.number)}`),
            merchantId,
            seq: leaf.seq,
          };
        last = leaf;
        walk.leaf(leaf);
        return undefined;
      },
      end: walk.end,
    };
  }

  /** After all chains: whether the roots that were signed are those of the chains. */
  end(): AuditFault | undefined {
    const wrong = this.#window.wrong();
    return wrong === undefined
      ? undefined
      : fault(wrong, 'its root is not that of the chains: leaves were changed, removed or added');
  }

  /** Begins another walk. @returns the checkpoints of which leaves are needed, both with it; undefined when all roots have been recomputed. */
  next(): { from: number; to: number } | undefined {
    // What was kept has room of its own: it costs no walk.
    const room = this.#leavesMax + this.#kept.size * this.#chains;
    const begin = this.#done;
    for (let size = 0; this.#done < this.#chosen.length; this.#done += 1) {
      size += this.#book.chains(this.#chosen[this.#done] ?? 0);
      if (size > room && this.#done > begin) break;
    }
    const numbers = this.#chosen.slice(begin, this.#done);
    const [from, to] = [numbers[0], numbers.at(-1)];
    if (from === undefined || to === undefined) return undefined;
    this.#window = new RootWindow(this.#book, numbers);
    return { from, to };
  }

  get #leavesMax(): number {
    return this.#options.leavesMax ?? LEAVES_MAX;
  }

  #misplaced(number: number, body: CheckpointBody): string | undefined {
    const expected = this.#book.count + 1;
    if (number !== expected || body.number !== number)
      return `expected checkpoint ${String(expected)}: one is missing or renumbered`;
    if (body.previous !== this.#hash) return 'it does not follow from the one before it';
    if (body.at < this.#at) return 'it is earlier than the one before it';
    // No chain ever ends: a merchant that is closed keeps its own.
    return body.chains < this.#chains ? 'it has fewer chains than one before it' : undefined;
  }

  #unlikeKept(number: number, text: string): string | undefined {
    const unlike = this.#kept.get(number)?.some((kept) => kept !== text) === true;
    return unlike ? 'it is not the one that was kept elsewhere under this number' : undefined;
  }
}

/** For a fault of a checkpoint, `seq` is its number. */
function fault(number: number, detail: string): AuditFault {
  return { merchantId: '~checkpoints', seq: number, fault: 'checkpoint', detail };
}

/** The key that a checkpoint names itself; whoever can change it can make it none. */
function keyOf({ publicKey }: StoredCheckpoint): KeyObject[] | undefined {
  try {
    return [readPublicKey(publicKey)];
  } catch {
    return undefined;
  }
}
