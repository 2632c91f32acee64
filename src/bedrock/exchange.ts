import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { UpstreamError } from './upstream-error.ts';

/** Milliseconds. */
export interface ExchangeLimits {
  /** To get a connection that is set up, TLS included; also the longest wait for a free one. */
  connectMs: number;
  /** From then to the response headers. */
  firstByteMs: number;
  /** For the whole exchange, the reading of the body included. */
  totalMs: number;
}

export interface ExchangeOptions {
  limits: ExchangeLimits;
  signal: AbortSignal | undefined;
  /** Tells whether a connection can already carry bytes. */
  isReady: (socket: Duplex) => boolean;
  /** What a connection emits when it becomes ready. */
  readyEvent: 'connect' | 'secureConnect';
}

/** One request and its answer on the wire: watches how far it got, so that a failure can say whether bytes had left. */
export class Exchange {
  readonly #request: ClientRequest;
  readonly #options: ExchangeOptions;
  /** Bytes can leave only in `sent`: before, Node holds them back until the connection is ready. */
  #phase: 'waiting' | 'connecting' | 'sent' = 'waiting';
  #response: IncomingMessage | undefined;
  #reject: (error: UpstreamError) => void = () => undefined;
  #stepTimer: NodeJS.Timeout | undefined;
  #totalTimer: NodeJS.Timeout | undefined;

  constructor(request: ClientRequest, options: ExchangeOptions) {
    this.#request = request;
    this.#options = options;
  }

  /**
   * Sends the body and resolves at the response headers. The limits and the signal go on guarding the response's body:
   * they destroy it with the UpstreamError that says why.
   */
  run(body: Uint8Array | undefined): Promise<IncomingMessage> {
    const { limits, signal } = this.#options;
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      this.#request.on('error', (cause) => {
        this.#fail(this.#connectionLost(cause));
      });
      this.#request.once('close', this.#stopWatching);
      if (signal?.aborted === true) {
        this.#onAbort();
        return;
      }
      signal?.addEventListener('abort', this.#onAbort);
      this.#totalTimer = setTimeout(this.#onTotal, limits.totalMs);
      this.#stepTimer = setTimeout(this.#onConnectTimeout, limits.connectMs);
      this.#request.once('socket', this.#onSocket);
      this.#request.once('response', (response) => {
        clearTimeout(this.#stepTimer);
        this.#response = response;
        resolve(response);
      });
      this.#request.end(body);
    });
  }

  readonly #onSocket = (socket: Duplex): void => {
    this.#phase = 'connecting';
    if (this.#options.isReady(socket)) this.#onReady();
    else socket.once(this.#options.readyEvent, this.#onReady);
  };

  readonly #onReady = (): void => {
    this.#phase = 'sent';
    clearTimeout(this.#stepTimer);
    if (this.#response !== undefined || this.#request.destroyed) return;
    this.#stepTimer = setTimeout(this.#onFirstByteTimeout, this.#options.limits.firstByteMs);
  };

  readonly #onConnectTimeout = (): void => {
    if (this.#phase === 'waiting') {
      const detail = 'Every connection to AWS is in use.';
      this.#fail(new UpstreamError('service.overloaded', detail, 'no', { retryAfterSeconds: 1 }));
      return;
    }
    this.#fail(new UpstreamError('upstream.unreachable', 'AWS did not take the connection in time.', 'no'));
  };

  readonly #onFirstByteTimeout = (): void => {
    this.#fail(new UpstreamError('upstream.timeout', 'AWS did not begin to answer in time.', 'unknown'));
  };

  readonly #onTotal = (): void => {
    this.#fail(new UpstreamError('upstream.timeout', 'The call took longer than allowed.', this.#executed()));
  };

  readonly #onAbort = (): void => {
    this.#fail(
      new UpstreamError('request.aborted', 'The call was given up before its end.', this.#executed()),
    );
  };

  readonly #stopWatching = (): void => {
    clearTimeout(this.#stepTimer);
    clearTimeout(this.#totalTimer);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
  };

  #connectionLost(cause: Error): UpstreamError {
    if (this.#phase === 'sent') {
      const detail = 'The connection to AWS broke before the answer.';
      return new UpstreamError('upstream.incomplete', detail, 'unknown', { cause });
    }
    return new UpstreamError('upstream.unreachable', 'AWS could not be reached.', 'no', { cause });
  }

  #executed(): 'no' | 'unknown' {
    return this.#phase === 'sent' ? 'unknown' : 'no';
  }

  /** The first failure wins: what it destroys fails again, in ways that say less. */
  #fail(error: UpstreamError): void {
    this.#stopWatching();
    this.#reject(error);
    this.#response?.destroy(error);
    this.#request.destroy();
  }
}
