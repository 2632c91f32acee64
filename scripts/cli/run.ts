import { existsSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What was asked for cannot be done as asked. Every problem at once; none repeats a value. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('; '));
    this.problems = problems;
  }
}

/** It was tried and did not work, or nobody knows whether it did. The message is for people and may have several lines. Exit code 1. */
export class Failure extends Error {
  override readonly name = 'Failure';
}

/** Somebody pressed Ctrl-C, or closed the input, before anything was done. Exit code 130. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/**
 * Runs a command and turns how it ended into an exit code. Results go to stdout, everything else to stderr.
 * @param notDone says in two words that nothing was done, e.g. `Not onboarded`.
 */
export function run(npmScript: string, notDone: string, main: () => Promise<void>): void {
  main().catch((error: unknown) => {
    const { text, exitCode } = ending(npmScript, notDone, error);
    process.stderr.write(`${text}\n`);
    process.exitCode = exitCode;
  });
}

function ending(npmScript: string, notDone: string, error: unknown): { text: string; exitCode: number } {
  if (error instanceof UsageError) {
    const lines = error.problems.map((problem) => `  - ${problem}`).join('\n');
    return {
      text: `${notDone}, nothing was written:\n${lines}\n\nnpm run ${npmScript} -- --help explains every flag.`,
      exitCode: 2,
    };
  }
  if (error instanceof Interrupted) return { text: `${notDone}, nothing was written.`, exitCode: 130 };
  if (error instanceof Failure) return { text: error.message, exitCode: 1 };
  // Not the message: an error from below may hold what was sent.
  return { text: `${notDone}: ${nameOf(error)}`, exitCode: 1 };
}

/** The code of an error, or else its class: all that may be shown of one that this program did not make. */
export function nameOf(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  const known = [code, name].find((text) => typeof text === 'string' && /^[A-Za-z0-9_]{1,60}$/.test(text));
  return typeof known === 'string' ? known : 'unknown reason';
}

/** Text from elsewhere, fit for a terminal: no control characters, and none of `secrets`, should somebody send one back. */
export function shown(text: string, secrets: readonly string[] = []): string {
  const plain = secrets.reduce((rest, secret) => rest.replaceAll(secret, '[secret]'), text);
  return plain.replaceAll(/\p{Cc}+/gu, ' ').slice(0, 2_000);
}

/**
 * Writes the result. Waits until it is out.
 * @throws Failure with `ifLost` when stdout is gone or full: a token that is shown once must not disappear without a word.
 */
export async function print(text: string, ifLost: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const lost = (error: unknown) => {
      reject(new Failure(`The result could not be printed (${nameOf(error)}). ${ifLost}`));
    };
    process.stdout.once('error', lost);
    process.stdout.write(text, (error) => {
      if (error) lost(error);
      else resolve();
    });
  });
}

/**
 * Once something has begun, its outcome must be told: the first signal waits for it. The second one ends at once, with `ifCut`.
 */
export function holdSignals(ifCut: string): Disposable {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  let held = false;
  const hold = () => {
    process.stderr.write(
      held ? `${ifCut}\n` : 'It has begun; waiting for its outcome. Once more ends at once.\n',
    );
    if (held) process.exit(130);
    held = true;
  };
  for (const signal of signals) process.on(signal, hold);
  return {
    [Symbol.dispose]: () => {
      for (const signal of signals) process.off(signal, hold);
    },
  };
}

/** Whether a file is what was started, and not imported: also through a symbolic link, and without its ending. */
export function wasStarted(fileUrl: string): boolean {
  const started = process.argv[1] ?? '';
  const file = fileURLToPath(fileUrl);
  return [started, `${started}.ts`].some((one) => existsSync(one) && realpathSync(one) === file);
}
