import { createHash } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { checkProven, parseBody } from './checkpoint.ts';
import type { CheckpointBody, ProvenCheckpoint } from './checkpoint.ts';

/** Checkpoints of one chain that are believed: signed, proven, and of one mind. */
export class KnownCheckpoints {
  readonly #merchantId: string;
  readonly #keys: readonly KeyObject[];
  /** Hashes of events, by the sequence numbers at which a checkpoint says them. */
  readonly #hashes = new Map<number, string>();
  readonly #texts = new Map<number, string>();
  #newest: CheckpointBody | undefined;

  constructor(merchantId: string, keys: readonly KeyObject[]) {
    this.#merchantId = merchantId;
    this.#keys = keys;
  }

  get newest(): CheckpointBody | undefined {
    return this.#newest;
  }

  /** The hash that was signed for an event, where one was. */
  hashOf(seq: number): string | undefined {
    return this.#hashes.get(seq);
  }

  /** The first event after this one that was signed. */
  after(seq: number): number | undefined {
    return [...this.#hashes.keys()].filter((one) => one > seq).sort((a, b) => a - b)[0];
  }

  /** @returns why this one is not to be believed; undefined when it is, and was taken in. */
  add(checkpoint: ProvenCheckpoint): string | undefined {
    const checked = checkProven(checkpoint, this.#keys);
    if (checked.problem !== undefined) return checked.problem;
    const { body } = checked;
    const problem = this.#contradiction(body, checkpoint) ?? this.#brokenLink(body, checkpoint.body);
    if (problem !== undefined) return problem;
    this.#hashes.set(checkpoint.leaf.seq, checkpoint.leaf.hash);
    this.#texts.set(body.number, checkpoint.body);
    if (body.number >= (this.#newest?.number ?? 0)) this.#newest = body;
    return undefined;
  }

  #contradiction({ number, origin }: CheckpointBody, { body, leaf }: ProvenCheckpoint): string | undefined {
    if (leaf.merchantId !== this.#merchantId) return 'it is about another chain';
    if (origin !== (this.#newest?.origin ?? origin)) return 'it is of another deployment';
    if ((this.#texts.get(number) ?? body) !== body)
      return `there is another one with the number ${String(number)}`;
    if ((this.#hashes.get(leaf.seq) ?? leaf.hash) !== leaf.hash)
      return 'another one says something else of this event';
    return undefined;
  }

  #brokenLink({ number, previous }: CheckpointBody, text: string): string | undefined {
    const [before, after] = [this.#texts.get(number - 1), this.#texts.get(number + 1)];
    if (before !== undefined && previous !== sha256(before))
      return 'it does not follow from the one before it';
    if (after !== undefined && parseBody(after)?.previous !== sha256(text))
      return 'the one after it does not follow from it';
    return undefined;
  }
}

export function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}
