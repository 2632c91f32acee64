import { Interrupted } from './run.ts';

/** The part of `process.stdin` that a prompt needs. */
export interface TerminalInput {
  setRawMode(on: boolean): unknown;
  setEncoding(encoding: 'utf8'): unknown;
  on(event: 'data', listener: (chunk: string) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  off(event: 'data', listener: (chunk: string) => void): unknown;
  off(event: 'end', listener: () => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

export interface TerminalOutput {
  write(text: string): unknown;
}

export interface Question {
  label: string;
  /** Shows what is typed. Never for a secret. */
  echo: boolean;
  /** Says what is wrong with an answer, so that it is asked again; undefined when it is good. */
  check: (answer: string) => string | undefined;
}

/** A key, a whole escape sequence (arrows, the marks of a bracketed paste), or a character. */
// eslint-disable-next-line no-control-regex -- it is about control characters
const KEYS = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001bO.|[\s\S]/gu;
const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
const CTRL_U = '\u0015';
const BACKSPACES = new Set(['\u007f', '\b']);
const ENTERS = new Set(['\r', '\n']);

/**
 * Asks questions on a terminal. From its making to its disposal the terminal itself echoes nothing, also of what is typed or pasted ahead.
 * Prompts go to `output` (stderr), so that stdout holds the result only.
 */
export class Terminal implements Disposable {
  readonly #input: TerminalInput;
  readonly #output: TerminalOutput;
  readonly #keys: string[] = [];
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(input: TerminalInput, output: TerminalOutput) {
    this.#input = input;
    this.#output = output;
    input.setRawMode(true);
    input.setEncoding('utf8');
    input.on('data', this.#onData);
    input.on('end', this.#onEnd);
    input.resume();
  }

  /** Asks until the answer is good. @throws Interrupted on Ctrl-C, and when there is no more input. */
  async ask(question: Question): Promise<string> {
    for (;;) {
      this.#output.write(`${question.label}: `);
      const answer = (await this.#line(question.echo)).trim();
      this.#output.write('\n');
      const problem = question.check(answer);
      if (problem === undefined) return answer;
      this.#output.write(`  ${problem}\n`);
    }
  }

  [Symbol.dispose](): void {
    this.#input.off('data', this.#onData);
    this.#input.off('end', this.#onEnd);
    this.#input.setRawMode(false);
    this.#input.pause();
    this.#keys.length = 0;
  }

  /** Reads until Enter, with Backspace and Ctrl-U. */
  async #line(echo: boolean): Promise<string> {
    const typed: string[] = [];
    const show = (text: string) => {
      if (echo) this.#output.write(text);
    };
    for (;;) {
      const key = await this.#nextKey();
      if (key === undefined || isGoodbye(key, typed.length)) {
        this.#output.write('\n');
        throw new Interrupted();
      }
      if (ENTERS.has(key)) return typed.join('');
      if (BACKSPACES.has(key)) show(typed.pop() === undefined ? '' : '\b \b');
      else if (key === CTRL_U) show('\b \b'.repeat(typed.splice(0).length));
      else if (!/\p{Cc}/u.test(key)) {
        typed.push(key);
        show(key);
      }
    }
  }

  async #nextKey(): Promise<string | undefined> {
    while (this.#keys.length === 0 && !this.#ended)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    return this.#keys.shift();
  }

  readonly #onData = (chunk: string): void => {
    this.#keys.push(...(chunk.match(KEYS) ?? []));
    this.#wake();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#wake();
  };
}

/** Ctrl-C, or Ctrl-D before anything was typed. */
function isGoodbye(key: string, typedLength: number): boolean {
  return key === CTRL_C || (key === CTRL_D && typedLength === 0);
}
