import type { IncomingMessage } from 'node:http';
import type { ServerHttp2Stream } from 'node:http2';
import { ServiceError } from '../../domain/errors.ts';
import { BodyLease } from '../body-budget.ts';
import type { BodyMemory } from '../body-budget.ts';
import { sendContinue } from '../protocol.ts';

export interface ReadBodyOptions {
  bytesMax: number;
  budget: BodyMemory;
  /** From now until the last byte. */
  timeoutMs: number;
}

/** Up to here a body may come without a Content-Length, and is reserved as it grows. */
const UNDECLARED_BYTES_MAX = 1_048_576;
/** First allocation for a body without Content-Length; it doubles from here. */
const UNDECLARED_BYTES_FIRST = 16_384;
/** Bodies are held for as long as an upload or a model call takes: seconds. */
const RETRY_AFTER_SECONDS = 2;

/**
 * Reads the whole body into memory that was reserved first: all of Content-Length before the first byte is read, or
 * step by step without one. `using` the lease gives the reservation back.
 * On failure the request is not destroyed, so that the error can still be answered; what the client goes on sending
 * is thrown away.
 * @throws ServiceError request.too_large | request.length_required | request.unsupported_media_type | request.invalid |
 * request.aborted | request.timeout | service.overloaded | limit.share_exceeded
 */
export async function readBody(req: IncomingMessage, options: ReadBodyOptions): Promise<BodyLease> {
  refuseEncoding(req);
  const declaredBytes = declaredLength(req);
  if (declaredBytes !== undefined && declaredBytes > options.bytesMax) throw tooLarge(options.bytesMax);
  const body = new GatheredBody(options, declaredBytes);
  try {
    if (declaredBytes !== 0) await gather(body, req, options.timeoutMs);
    return body.toLease();
  } catch (error) {
    body.release();
    throw error;
  }
}

/** Bytes received so far, in one buffer whose capacity is reserved. Many tiny chunks cost no more than a few large ones. */
class GatheredBody {
  readonly #options: ReadBodyOptions;
  readonly #declaredBytes: number | undefined;
  #buffer = Buffer.alloc(0);
  #received = 0;

  /** With a declared length: the only allocation, not touched (so not resident) until bytes arrive. */
  constructor(options: ReadBodyOptions, declaredBytes: number | undefined) {
    this.#options = options;
    this.#declaredBytes = declaredBytes;
    if (declaredBytes !== undefined) this.#growTo(declaredBytes);
  }

  write(chunk: Buffer): void {
    const received = this.#received + chunk.length;
    if (received > this.#buffer.length) this.#makeRoomFor(received);
    chunk.copy(this.#buffer, this.#received);
    this.#received = received;
  }

  toLease(): BodyLease {
    if (this.#declaredBytes !== undefined && this.#received !== this.#declaredBytes)
      throw lengthMismatch('shorter');
    return new BodyLease(this.#buffer.subarray(0, this.#received), this.#options.budget, this.#buffer.length);
  }

  release(): void {
    this.#options.budget.release(this.#buffer.length);
    this.#buffer = Buffer.alloc(0);
  }

  #makeRoomFor(bytes: number): void {
    if (this.#declaredBytes !== undefined) throw lengthMismatch('longer');
    const bytesMax = Math.min(this.#options.bytesMax, UNDECLARED_BYTES_MAX);
    if (bytes > bytesMax) throw bytes > UNDECLARED_BYTES_MAX ? lengthRequired() : tooLarge(bytesMax);
    let capacity = UNDECLARED_BYTES_FIRST;
    while (capacity < bytes) capacity *= 2;
    this.#growTo(Math.min(capacity, bytesMax));
  }

  #growTo(capacity: number): void {
    const { budget } = this.#options;
    if (!budget.tryTake(capacity - this.#buffer.length)) throw overloaded();
    const grown = Buffer.allocUnsafeSlow(capacity);
    this.#buffer.copy(grown, 0, 0, this.#received);
    this.#buffer = grown;
  }
}

/**
 * Listens rather than iterates: leaving a `for await` would destroy the request, and with it the way to answer.
 * After a failure the request keeps flowing, with nobody listening.
 */
function gather(body: GatheredBody, req: IncomingMessage, timeoutMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (failure?: Error): void => {
      clearTimeout(timer);
      req.off('data', onData).off('end', onEnd).off('close', onGone).off('error', onGone);
      req.resume();
      if (failure === undefined) resolve();
      else reject(failure);
    };
    const onData = (chunk: Buffer): void => {
      try {
        body.write(chunk);
      } catch (error) {
        settle(error as ServiceError);
      }
    };
    const onGone = (): void => {
      settle(new ServiceError('request.aborted', 'The request ended before its body was complete.'));
    };
    const onEnd = (): void => {
      if (isGone(req)) onGone();
      else settle();
    };
    const timer = setTimeout(() => {
      settle(new ServiceError('request.timeout', `The body was not complete after ${String(timeoutMs)} ms.`));
    }, timeoutMs);
    if (isGone(req)) {
      onGone();
      return;
    }
    req.on('data', onData).on('end', onEnd).on('close', onGone).on('error', onGone);
    sendContinue(req);
  });
}

/**
 * HTTP/2 ends the readable side of an aborted request as if it were whole; only these flags tell. Our own side of the
 * stream is open until we answer, so a stream that is closed at the end of the body was cut.
 */
function isGone(req: IncomingMessage): boolean {
  const { aborted, stream } = req as { aborted: boolean; stream?: ServerHttp2Stream };
  return aborted || stream?.closed === true || (req.destroyed && !req.readableEnded);
}

/** Compressed bodies are not accepted: their length says nothing about the memory they need. */
function refuseEncoding(req: IncomingMessage): void {
  const encoding = req.headers['content-encoding'];
  if (encoding === undefined || encoding.trim().toLowerCase() === 'identity') return;
  throw new ServiceError('request.unsupported_media_type', 'Send the body without Content-Encoding.');
}

/** Undefined when the body has no declared length; 0 when there is no body. */
function declaredLength(req: IncomingMessage): number | undefined {
  const length = req.headers['content-length'];
  if (length === undefined) {
    const mayHaveBody = req.httpVersionMajor !== 1 || req.headers['transfer-encoding'] !== undefined;
    return mayHaveBody ? undefined : 0;
  }
  if (/^\d{1,15}$/.test(length)) return Number(length);
  throw new ServiceError('request.invalid', 'Content-Length must be a whole number of bytes.');
}

function tooLarge(bytesMax: number): ServiceError {
  return new ServiceError('request.too_large', `The body may have at most ${String(bytesMax)} bytes.`);
}

function lengthRequired(): ServiceError {
  const detail = `Send Content-Length with bodies of more than ${String(UNDECLARED_BYTES_MAX)} bytes.`;
  return new ServiceError('request.length_required', detail);
}

function lengthMismatch(how: 'shorter' | 'longer'): ServiceError {
  return new ServiceError('request.invalid', `The body is ${how} than its Content-Length.`);
}

function overloaded(): ServiceError {
  const detail = 'Too many request bodies are being read at the moment. Try again shortly.';
  return new ServiceError('service.overloaded', detail, { retryAfterSeconds: RETRY_AFTER_SECONDS });
}
