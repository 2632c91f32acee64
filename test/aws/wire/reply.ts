import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { constants } from 'node:http2';
import type { Http2ServerResponse } from 'node:http2';
import type { Arrival } from './listener.ts';

/** Thrown out of a wait or a write when nobody is there any more: the client has left, or the stand-in is closing. */
export class ClientGone extends Error {
  override readonly name = 'ClientGone';
}

/** What both kinds of response offer and the stand-in uses. */
interface CommonResponse {
  writeHead(status: number, headers: Record<string, string>): unknown;
  write(chunk: Buffer, done: (error?: Error | null) => void): boolean;
  end(): unknown;
  on(event: string, listener: () => void): unknown;
  once(event: string, listener: () => void): unknown;
}

/** Long enough that bytes handed to the kernel or to the HTTP/2 session leave before the connection is destroyed. */
const FLUSH_MS = 10;

/** The answer as it goes out: waits for slow readers, notices leavers, and can break off in the ways networks do. */
export class Reply {
  status: number | undefined;
  bytesSent = 0;
  readonly #response: CommonResponse;
  readonly #arrival: Arrival;
  readonly #left = new AbortController();
  readonly #hash = createHash('sha256');

  constructor(arrival: Arrival, closing: AbortSignal) {
    this.#arrival = arrival;
    this.#response = arrival.response;
    const leave = (): void => {
      this.#left.abort();
    };
    // Also after an orderly end, when nothing waits here any more: it frees the listener on `closing`.
    this.#response.on('close', leave);
    this.#response.on('error', leave);
    arrival.request.on('error', leave);
    closing.addEventListener('abort', leave, { once: true, signal: this.#left.signal });
  }

  /** SHA-256 of the body bytes sent, in hex. Call once, at the end. */
  bodySha256(): string {
    return this.#hash.digest('hex');
  }

  head(status: number, headers: Readonly<Record<string, string>>): void {
    if (this.#left.signal.aborted) throw new ClientGone();
    this.status = status;
    this.#response.writeHead(status, { ...headers });
  }

  /** Resolves when the reader has room for more. */
  async write(chunk: Buffer): Promise<void> {
    if (this.#left.signal.aborted) throw new ClientGone();
    this.bytesSent += chunk.length;
    this.#hash.update(chunk);
    if (this.#response.write(chunk, () => undefined)) return;
    await new Promise<void>((resolve, reject) => {
      const onLeft = (): void => {
        reject(new ClientGone());
      };
      this.#left.signal.addEventListener('abort', onLeft, { once: true });
      this.#response.once('drain', () => {
        this.#left.signal.removeEventListener('abort', onLeft);
        resolve();
      });
    });
  }

  end(): void {
    if (this.#left.signal.aborted) throw new ClientGone();
    this.#response.end();
  }

  /** Waits without keeping the process alive. @throws ClientGone when the client leaves meanwhile */
  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { ref: false, signal: this.#left.signal }).catch(() => {
      throw new ClientGone();
    });
  }

  /** Waits until the client leaves. */
  async hang(): Promise<never> {
    if (!this.#left.signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#left.signal.addEventListener(
          'abort',
          () => {
            resolve();
          },
          { once: true },
        );
      });
    }
    throw new ClientGone();
  }

  /** Destroys the connection after what was written has left. */
  async cut(): Promise<void> {
    await sleep(FLUSH_MS);
    this.#arrival.socket?.destroy();
  }

  /** Resets: on HTTP/2 only this stream (RST_STREAM with `code`), on HTTP/1.1 the connection (TCP reset). */
  async reset(code: number = constants.NGHTTP2_INTERNAL_ERROR): Promise<void> {
    await sleep(FLUSH_MS);
    if (this.#arrival.protocol === 'h2') (this.#arrival.response as Http2ServerResponse).stream.close(code);
    else this.#arrival.socket?.resetAndDestroy();
  }
}
