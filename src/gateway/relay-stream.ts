import { exceptionFrame, parseFrame, wholeFrames } from '../bedrock/event-stream.ts';
import type { Frame } from '../bedrock/event-stream.ts';
import { createUsageTap } from '../bedrock/usage-tap.ts';
import type { UsageTap } from '../bedrock/usage-tap.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CallOutcome, Operation } from '../domain/usage.ts';
import type { Sent } from './sent.ts';
import { withIdleTimeout } from './read-whole.ts';

/** AWS's own frames stay below 16 MiB plus headers. Bytes. */
const FRAME_BYTES_MAX = 16 * 1024 * 1024 + 128 * 1024;

/** In the ledger, of a call that was ended because its right had. */
export const REVOKED = 'ended: its right was revoked';

interface RelayOptions {
  idleTimeoutMs: number;
  track: (work: Promise<void>) => void;
}

/**
 * Passes a stream on frame by frame and settles it from its own terminal event. Pulling is the backpressure: nothing is read ahead of the
 * consumer. A consumer that leaves does not end the upstream: the rest is read for its usage until the call's lifeline ends.
 * A stream that fails, or ends without its terminal event, ends with an exception frame and is unknown in the ledger.
 */
export function relayStream(sent: Sent, options: RelayOptions): AsyncIterable<Frame> {
  const relay = new StreamRelay(sent, options.idleTimeoutMs);
  options.track(relay.done);
  return relay;
}

class StreamRelay implements AsyncIterable<Frame> {
  readonly done: Promise<void>;
  readonly #sent: Sent;
  readonly #tap: UsageTap;
  readonly #frames: AsyncGenerator<Frame>;
  #finish: () => void = () => undefined;
  #ended = false;
  #sawFirst = false;

  constructor(sent: Sent, idleTimeoutMs: number) {
    this.#sent = sent;
    this.#tap = createUsageTap(
      sent.paid.operation as Operation & ('converse-stream' | 'invoke-with-response-stream'),
    );
    this.#frames = wholeFrames(withIdleTimeout(sent.reply.body, idleTimeoutMs), {
      frameBytesMax: FRAME_BYTES_MAX,
    });
    this.done = new Promise((resolve) => (this.#finish = resolve));
    // A reply that nobody comes to read is drained once its lifeline ends.
    sent.lifeline.signal.addEventListener('abort', () => void this.#drain(), { once: true });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Frame> {
    try {
      let failure: unknown;
      try {
        for (let frame = await this.#next(); frame !== undefined; frame = await this.#next()) yield frame;
      } catch (error) {
        failure = error;
      }
      const complete = await this.#settle(failure);
      if (!complete && this.#tap.exception === undefined) yield parseFrame(this.#lastWord(failure));
    } finally {
      void this.#drain();
    }
  }

  /** The exception frame in place of AWS's terminal event. */
  #lastWord(failure: unknown): Buffer {
    const { revoked } = this.#sent.lifeline;
    if (revoked === undefined) return exceptionFrame('modelStreamErrorException', whatWentWrong(failure));
    return exceptionFrame('accessDeniedException', revoked.detail, {
      code: revoked.code,
      ...revoked.options.extra,
    });
  }

  async #next(): Promise<Frame | undefined> {
    const step = await this.#frames.next();
    if (step.done === true) return undefined;
    if (!this.#sawFirst) {
      this.#sawFirst = true;
      this.#sent.facts.timeToFirstByteMs = performance.now() - this.#sent.startedAtMs;
    }
    this.#tap.see(step.value);
    this.#sent.recorder?.add(step.value.bytes);
    return step.value;
  }

  /** Reads what the consumer left, without passing it on. */
  async #drain(): Promise<void> {
    if (this.#ended) return;
    let failure: unknown;
    try {
      while ((await this.#next()) !== undefined);
    } catch (error) {
      failure = error;
    }
    await this.#settle(failure);
  }

  /** Writes the outcome once. @returns whether the stream was whole. */
  async #settle(failure: unknown): Promise<boolean> {
    const outcome = this.#outcome(failure);
    if (!this.#ended) {
      this.#ended = true;
      if (outcome.state === 'settled') await this.#sent.recorder?.keep();
      await this.#sent.call.resolve(outcome);
      this.#sent.lifeline[Symbol.dispose]();
      this.#sent.reply.body.destroy();
      this.#sent.reply.release();
      this.#finish();
    }
    return outcome.state === 'settled';
  }

  #outcome(failure: unknown): CallOutcome {
    const { exception, complete } = this.#tap;
    const upstream = { ...this.#sent.facts, latencyMs: performance.now() - this.#sent.startedAtMs };
    const usage = complete ? this.#tap.usage() : undefined;
    if (usage !== undefined) {
      const drained = this.#sent.paid.callerGone.aborted;
      return { state: 'settled', usage: drained ? { ...usage, provenance: 'drained' } : usage, upstream };
    }
    const seen = this.#tap.seen();
    if (exception !== undefined) {
      return {
        seen,
        state: 'unknown',
        reason: 'AWS ended the stream with an exception',
        upstream: { ...upstream, errorType: exception.type },
      };
    }
    const broken = failure === undefined ? 'stream ended without its last event' : 'stream broke off';
    const reason = this.#sent.lifeline.revoked === undefined ? broken : REVOKED;
    return { seen, state: 'unknown', reason, upstream };
  }
}

function whatWentWrong(failure: unknown): string {
  if (failure instanceof ServiceError && failure.code === 'upstream.timeout') return failure.detail;
  return 'The stream from AWS broke off before its last event. What was delivered may be incomplete.';
}
