import type { Clock } from '../domain/clock.ts';
import { errorFields } from '../observability/logger.ts';
import type { Logger } from '../observability/logger.ts';
import type { CheckpointBucket } from './checkpoint-bucket-aws.ts';
import type { CheckpointSigner } from './checkpoint-signer-aws.ts';
import type { CheckpointStore, DueCheckpoint } from './checkpoint-store.ts';

export interface CheckpointerParts {
  store: Pick<CheckpointStore, 'begin' | 'sign' | 'take' | 'copied' | 'waiting'>;
  signer: Pick<CheckpointSigner, 'sign'>;
  /** Absent: checkpoints stay in the database. */
  bucket?: Pick<CheckpointBucket, 'put'>;
  logger: Logger;
  origin: string;
  /** A checkpoint is due after this long, if there is anything new. */
  everyMs: number;
  /** Or after so many new events. */
  events: number;
  /** How long one attempt is this process's alone. Longer than an attempt at KMS takes; a copy that takes longer is made twice and is the same. Default 30 s. */
  leaseMs?: number;
  /** When waiting becomes an alarm. Default 5 minutes. */
  lateMs?: number;
  /** Counts spans only (monotonicClock): nobody sets it, as somebody may set the database's. */
  clock: Clock;
}

const LEASE_MS = 30_000;
const LATE_MS = 5 * 60_000;
const COPIES_AT_ONCE = 20;
/** After so long a round begins no further copy: what piled up does not hold back the next checkpoint. Milliseconds. */
const COPYING_MS = 10_000;

/**
 * Makes checkpoints: takes what is due, has it signed, keeps the signature, copies it. Each step is one statement in the database, so a process
 * that dies between two of them leaves what the next one goes on with. Any number of replicas may do this at one time.
 */
export class Checkpointer implements AsyncDisposable {
  readonly #parts: CheckpointerParts;
  #running: Promise<void> | undefined;
  #closing = false;
  /** Since when, by our clock, there is something that the newest checkpoint does not have. */
  #behind: { number: number; since: number } | undefined;

  constructor(parts: CheckpointerParts) {
    this.#parts = parts;
  }

  /** One at a time: while one runs, others are that one. Failures of KMS and S3 are told in the log. @throws ServiceError ledger.unavailable */
  round(): Promise<void> {
    this.#running ??= this.#round().finally(() => (this.#running = undefined));
    return this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true;
    await this.#running?.catch(() => undefined);
  }

  async #round(): Promise<void> {
    try {
      await this.#make();
      await this.#copy();
    } finally {
      // Whatever failed above, and the more so when it fails each time.
      await this.#tellLate();
    }
  }

  async #make(): Promise<void> {
    const { store, origin, everyMs, events, leaseMs = LEASE_MS } = this.#parts;
    // A second one when the first had waited for KMS: it covers all that came meanwhile.
    for (let made = 0; made < 2 && !this.#closing; made += 1) {
      const due = await store.begin({ origin, everyMs, events, leaseMs });
      if (due === undefined || !(await this.#sign(due))) break;
    }
  }

  async #sign(due: DueCheckpoint): Promise<boolean> {
    const { store, signer, logger } = this.#parts;
    const { number, body, rewound } = due;
    if (rewound > 0)
      logger.error('audit chains are behind their last checkpoint, or gone: somebody rewrote the database', {
        chains: rewound,
        checkpoint: number,
      });
    let signed;
    try {
      signed = await signer.sign(body);
    } catch (error) {
      logger.warn('audit checkpoint not signed: tried again', { checkpoint: number, ...errorFields(error) });
      return false;
    }
    await store.sign(number, signed);
    return true;
  }

  async #copy(): Promise<void> {
    const { store, bucket, logger, clock, leaseMs = LEASE_MS } = this.#parts;
    if (bucket === undefined) return;
    const until = clock.now() + COPYING_MS;
    for (const { number, ...checkpoint } of await store.take(COPIES_AT_ONCE, leaseMs)) {
      if (this.#closing || clock.now() > until) return;
      try {
        if ((await bucket.put(number, checkpoint)) === 'beside')
          logger.error(
            'audit checkpoint number was used before: the database was rewritten or restored; both copies are kept',
            { checkpoint: number },
          );
      } catch (error) {
        logger.warn('audit checkpoint not copied: tried again', {
          checkpoint: number,
          ...errorFields(error),
        });
        // The others would fail alike; their lease ends.
        return;
      }
      await store.copied(number);
    }
  }

  async #tellLate(): Promise<void> {
    const { store, bucket, logger, everyMs, lateMs = LATE_MS } = this.#parts;
    const { unsignedMs, uncopiedMs, newest, behind } = await store.waiting();
    const behindMs = this.#behindMs(newest, behind);
    if (behindMs >= everyMs + lateMs)
      logger.error('audit checkpoints are late: none is made, though there is something new', {
        waitingMs: Math.round(behindMs),
      });
    if (unsignedMs >= lateMs)
      logger.error('audit checkpoints are late: KMS does not sign', { waitingMs: Math.round(unsignedMs) });
    if (bucket !== undefined && uncopiedMs >= lateMs)
      logger.error('audit checkpoints are late: S3 does not take copies', {
        waitingMs: Math.round(uncopiedMs),
      });
  }

  /** In a busy house there is always something new: what counts is how long the same checkpoint is the newest. */
  #behindMs(number: number, behind: boolean): number {
    const now = this.#parts.clock.now();
    if (!behind) this.#behind = undefined;
    else if (this.#behind?.number !== number) this.#behind = { number, since: now };
    return now - (this.#behind?.since ?? now);
  }
}
