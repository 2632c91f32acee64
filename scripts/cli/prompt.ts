import type { ReadStream, WriteStream } from 'node:tty';

export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** A terminal to ask on: standard input, and standard error, so that what the command prints stays clean. */
export interface Terminal {
  input: Pick<ReadStream, 'isTTY' | 'setRawMode' | 'on' | 'off' | 'resume' | 'pause'>;
  output: Pick<WriteStream, 'write'>;
}

const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
const CTRL_U = '\u0015';
const BACKSPACES: ReadonlySet<string> = new Set(['\u0008', '\u007f']);

/**
 * Asks for a line that is not shown while it is typed.
 * @throws Interrupted on Ctrl-C, and on Ctrl-D with nothing typed; the terminal is as it was before.
 */
export function askHidden(question: string, { input, output }: Terminal): Promise<string> {
  output.write(`${question}: `);
  input.setRawMode(true);
  input.resume();
  return new Promise((resolve, reject) => {
    let typed = '';
    const finish = (result: string | Interrupted): void => {
      input.off('data', onData);
      input.setRawMode(false);
      input.pause();
      output.write('\n');
      if (result instanceof Interrupted) reject(result);
      else resolve(result);
    };
    const onData = (data: Buffer): void => {
      for (const character of data.toString('utf8')) {
        if (character === CTRL_C || (character === CTRL_D && typed === '')) {
          finish(new Interrupted('interrupted'));
          return;
        }
        if (character === '\r' || character === '\n') {
          finish(typed.trim());
          return;
        }
        if (character === CTRL_U) typed = '';
        else if (BACKSPACES.has(character)) typed = typed.slice(0, -1);
        else if (character >= ' ') typed += character;
      }
    };
    input.on('data', onData);
  });
}
