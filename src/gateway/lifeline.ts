import type { ServiceError } from '../domain/errors.ts';

/**
 * The signal that ends an upstream call. It fires some time after the caller left (so that the usage of what was generated can still be
 * read), or at once when the service must stop or the right to the call has ended.
 */
export class Lifeline implements Disposable {
  readonly #end = new AbortController();
  readonly #callerGone: AbortSignal;
  readonly #cut: AbortSignal;
  readonly #drainMs: number;
  #timer: NodeJS.Timeout | undefined;
  #revoked: ServiceError | undefined;
  #watched: Disposable | undefined;

  constructor(callerGone: AbortSignal, cut: AbortSignal, drainMs: number) {
    this.#callerGone = callerGone;
    this.#cut = cut;
    this.#drainMs = drainMs;
    callerGone.addEventListener('abort', this.#onGone, { once: true });
    cut.addEventListener('abort', this.#onCut, { once: true });
    if (callerGone.aborted) this.#onGone();
    if (cut.aborted) this.#onCut();
  }

  get signal(): AbortSignal {
    return this.#end.signal;
  }

  /** What the caller is told, when the call was ended because its right had. */
  get revoked(): ServiceError | undefined {
    return this.#revoked;
  }

  /** Ends the call when its right ends. `begin` begins the watch, which lasts as long as this does. */
  watch(begin: (cut: (why: ServiceError) => void) => Disposable): void {
    this.#watched = begin((why) => {
      this.#revoked = why;
      this.#onCut();
    });
  }

  readonly #onGone = (): void => {
    this.#timer ??= setTimeout(this.#onCut, this.#drainMs);
  };

  readonly #onCut = (): void => {
    this.#end.abort();
  };

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#watched?.[Symbol.dispose]();
    this.#callerGone.removeEventListener('abort', this.#onGone);
    this.#cut.removeEventListener('abort', this.#onCut);
  }
}
