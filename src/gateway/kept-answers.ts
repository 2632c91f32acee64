import { wholeFrames } from '../bedrock/event-stream.ts';
import type { Frame } from '../bedrock/event-stream.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CallId, MerchantId } from '../domain/ids.ts';
import { STREAM_OPERATIONS } from '../domain/usage.ts';
import type { AnswerSeal } from '../ledger/answer-seal.ts';
import type { AnswerStore, FirstCall } from '../ledger/answer-store.ts';
import { idempotencyKeyOf, keyHashOf } from './idempotency.ts';
import type { CallIdentity, PaidCall, PaidReply } from './paid-call.ts';

export interface KeptAnswersParts {
  store: Pick<AnswerStore, 'keep' | 'find'>;
  seal: AnswerSeal;
  /** An answer could not be kept: the call stands, and a second one with its key will be told so. */
  onLost: (callId: CallId, error: unknown) => void;
}

/** Longer answers are not kept. Bytes. */
const ANSWER_BYTES_MAX = 1024 * 1024;
/** Of status, headers and identity; far above what AWS sends. Bytes. */
const HEAD_BYTES_MAX = 32 * 1024;
const LENGTH_BYTES = 4;
/** Nothing says when the first call ends. */
const IN_PROGRESS_RETRY_SECONDS = 1;

type Head = Pick<PaidReply, 'status' | 'headers'> & { identity: CallIdentity };

/**
 * The answers of calls that carried an Idempotency-Key, for those who ask again: kept for a day, up to 1 MiB, sealed (ledger/answer-seal.ts).
 * An answer is kept before its call is settled, so that a crash between the two loses the row's numbers and not the answer.
 */
export class KeptAnswers {
  readonly #parts: KeptAnswersParts;

  constructor(parts: KeptAnswersParts) {
    this.#parts = parts;
  }

  /** Takes down the answer of a call; undefined where the call carries no key and nothing of it may be kept. */
  recorderOf(paid: PaidCall, head: Head): AnswerRecorder | undefined {
    const key = idempotencyKeyOf(paid);
    if (key === undefined) return undefined;
    return new AnswerRecorder((body) => this.#keep({ key, merchantId: paid.merchant.id, head, body }));
  }

  /**
   * The answer of the first call with this key, as it was.
   * @throws ServiceError idempotency.in_progress | idempotency.done_before | ledger.unavailable
   */
  async replay(paid: PaidCall, callId: CallId): Promise<PaidReply> {
    const key = idempotencyKeyOf(paid) ?? '';
    const first = await this.#parts.store.find(paid.merchant.id, keyHashOf(key));
    const opened =
      first?.sealed &&
      this.#parts.seal.open(first.sealed, {
        merchantId: paid.merchant.id,
        callId: first.callId,
        idempotencyKey: key,
      });
    if (opened === undefined) throw withoutAnswer(first, callId);
    const { head, body } = decode(opened);
    return {
      ...head,
      identity: { ...head.identity, replayed: true },
      body: STREAM_OPERATIONS.has(paid.operation) ? framesOf(body) : body,
    };
  }

  async #keep(answer: { key: string; merchantId: MerchantId; head: Head; body: Buffer }): Promise<void> {
    const { key, merchantId, head, body } = answer;
    const { callId } = head.identity;
    try {
      const { seal, store } = this.#parts;
      const sealed = seal.seal(encode(head, body), { merchantId, callId, idempotencyKey: key });
      await store.keep(merchantId, { callId, keyHash: keyHashOf(key), sealed, keyId: seal.keyId });
    } catch (error) {
      this.#parts.onLost(callId, error);
    }
  }
}

/** Gathers an answer as it goes by. */
export class AnswerRecorder {
  readonly #write: (body: Buffer) => Promise<void>;
  #pieces: Uint8Array[] = [];
  #bytes = 0;

  constructor(write: (body: Buffer) => Promise<void>) {
    this.#write = write;
  }

  add(piece: Uint8Array): void {
    this.#bytes += piece.byteLength;
    if (this.#bytes <= ANSWER_BYTES_MAX) this.#pieces.push(piece);
    else this.#pieces = [];
  }

  /** Keeps it, unless it is too long. Called once, before the call is settled. Never throws. */
  async keep(): Promise<void> {
    if (this.#bytes <= ANSWER_BYTES_MAX) await this.#write(Buffer.concat(this.#pieces, this.#bytes));
  }
}

function withoutAnswer(first: FirstCall | undefined, callId: CallId): ServiceError {
  const extra = { callId: first?.callId ?? callId };
  const state = first?.state ?? 'settled';
  // Void: it was refused a moment ago, and the next one will be made.
  if (state === 'held' || state === 'void') {
    return new ServiceError(
      'idempotency.in_progress',
      'The first call with this Idempotency-Key is still running. Ask again with the same key for its answer.',
      { extra, retryAfterSeconds: IN_PROGRESS_RETRY_SECONDS },
    );
  }
  const why =
    state === 'unknown'
      ? 'its outcome is in doubt: AWS may have run it'
      : 'its answer is not kept (any more). GET /usage/records tells its outcome';
  return new ServiceError(
    'idempotency.done_before',
    `A call with this Idempotency-Key was made before, and ${why}. It was not made again; use a new key to pay for another.`,
    { extra: { ...extra, outcome: state } },
  );
}

/** `length of head 4 | head as JSON | body`. @throws Error when the head is longer than any AWS sends. */
function encode({ status, headers, identity }: Head, body: Buffer): Buffer {
  const head = Buffer.from(JSON.stringify({ status, headers, identity }));
  if (head.length > HEAD_BYTES_MAX) throw new RangeError('the head of an answer is too long to be kept');
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head, body]);
}

function decode(bytes: Buffer): { head: Head; body: Buffer } {
  const end = LENGTH_BYTES + bytes.readUInt32BE(0);
  const head = JSON.parse(bytes.toString('utf8', LENGTH_BYTES, end)) as Head;
  return { head, body: bytes.subarray(end) };
}

function framesOf(bytes: Buffer): AsyncIterable<Frame> {
  async function* whole() {
    yield await Promise.resolve(bytes);
  }
  return wholeFrames(whole(), { frameBytesMax: ANSWER_BYTES_MAX });
}
