import { inspect } from 'node:util';

const REDACTED = '[secret]';

/**
 * A value that prints as nothing: not in logs, JSON, template strings, errors or `util.inspect`.
 * It opens only through `reveal()`, which the linter allows in a short list of files (eslint.config.js).
 */
export class Secret<T = string> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** Gives the plain value. Call it at the last moment and do not keep the result. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}
