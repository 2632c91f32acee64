import { leafHash, rootOf, saltOf } from './merkle.ts';
import type { Leaf } from './merkle.ts';

const HASH = 32;

/** What is needed of each checkpoint to recompute its root: 68 bytes, not an object. A year of minutes is half a million of them. */
export class RootBook {
  #bytes = Buffer.alloc(0);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** They come by their numbers, from 1. @param root hex. */
  push({ blind, root, chains }: { blind: Buffer; root: string; chains: number }): void {
    const at = this.#count * WIDTH;
    if (at === this.#bytes.length)
      this.#bytes = Buffer.concat([this.#bytes, Buffer.alloc(Math.max(1_000 * WIDTH, at))]);
    blind.copy(this.#bytes, at, 0, HASH);
    this.#bytes.write(root, at + HASH, HASH, 'hex');
    this.#bytes.writeUInt32BE(chains, at + 2 * HASH);
    this.#count += 1;
  }

  blind(number: number): Buffer {
    return this.#bytes.subarray((number - 1) * WIDTH, (number - 1) * WIDTH + HASH);
  }

  root(number: number): Buffer {
    return this.#bytes.subarray((number - 1) * WIDTH + HASH, (number - 1) * WIDTH + 2 * HASH);
  }

  chains(number: number): number {
    return this.#bytes.readUInt32BE((number - 1) * WIDTH + 2 * HASH);
  }
}
const WIDTH = 2 * HASH + 4;

/** The roots that are recomputed in one walk along all chains. Memory: 32 bytes for each leaf of each, one after the other, and the tree of one. */
export class RootWindow {
  readonly #book: RootBook;
  readonly #numbers: readonly number[];
  /** Where the leaves of each begin. */
  readonly #starts: Uint32Array;
  readonly #counts: Uint32Array;
  readonly #hashes: Buffer;

  /** @param numbers of checkpoints, ascending. */
  constructor(book: RootBook, numbers: readonly number[]) {
    this.#book = book;
    this.#numbers = numbers;
    this.#starts = new Uint32Array(numbers.length);
    this.#counts = new Uint32Array(numbers.length);
    let size = 0;
    for (const [index, number] of numbers.entries()) {
      this.#starts[index] = size;
      size += book.chains(number);
    }
    this.#hashes = Buffer.alloc(size * HASH);
  }

  /** For one chain: what its leaf was at each of the checkpoints. Leaves come in the order of their checkpoints. */
  walk(merchantId: string): { leaf: (leaf: ChainLeaf) => void; end: () => void } {
    let at = 0;
    let last: ChainLeaf | undefined;
    const upTo = (before: number) => {
      for (; at < this.#numbers.length && this.#number(at) < before; at += 1)
        if (last !== undefined) this.#put(at, { merchantId, seq: last.seq, hash: last.hash });
    };
    return {
      leaf: (leaf) => {
        upTo(leaf.number);
        last = leaf;
      },
      end: () => {
        upTo(Infinity);
      },
    };
  }

  /** After all chains. @returns the first checkpoint whose root is not theirs. */
  wrong(): number | undefined {
    return this.#numbers.find((number, index) => {
      const [start, length] = [this.#starts[index] ?? 0, this.#book.chains(number)];
      if (this.#counts[index] !== length) return true;
      const leaves = Array.from({ length }, (_, leaf) => this.#slot(start + leaf));
      return rootOf(leaves)?.equals(this.#book.root(number)) !== true;
    });
  }

  #put(index: number, leaf: Omit<Leaf, 'salt'>): void {
    const number = this.#number(index);
    const count = this.#counts[index] ?? 0;
    this.#counts[index] = count + 1;
    // One too many: the count tells, and its place is the next one's.
    if (count >= this.#book.chains(number)) return;
    const salt = saltOf(this.#book.blind(number), leaf.merchantId);
    leafHash({ ...leaf, salt }).copy(this.#hashes, ((this.#starts[index] ?? 0) + count) * HASH);
  }

  #number(index: number): number {
    return this.#numbers[index] ?? Infinity;
  }

  #slot(index: number): Buffer {
    return this.#hashes.subarray(index * HASH, (index + 1) * HASH);
  }
}

interface ChainLeaf {
  number: number;
  seq: number;
  hash: string;
}
