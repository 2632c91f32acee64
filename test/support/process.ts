import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { entryOf } from './transpiled.ts';

const ROOT = path.join(import.meta.dirname, '../..');

export interface ServiceProcess extends AsyncDisposable {
  url: string;
  pid: number;
  child: ChildProcess;
  /** What it wrote to standard output and error. */
  output: () => string;
  /** Sends a signal and waits for the end. */
  end(signal: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/**
 * The service as a process of its own, started as `npm start` does it.
 * @param entry what Node is told to run instead, e.g. a build.
 */
export async function startServiceProcess(
  env: Record<string, string>,
  args: string[] = [],
  entry: readonly string[] = entryOf('src/main.ts'),
): Promise<ServiceProcess> {
  const child = spawn(process.execPath, [...entry, ...args], {
    cwd: ROOT,
    env: { ...env, PATH: process.env['PATH'] ?? '' },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const port = await Promise.race([
    once(child, 'message').then(([message]) => (message as { port: number }).port),
    ended.then(([code]) => {
      throw new Error(`the service ended with code ${String(code)}:\n${output}`);
    }),
  ]);
  const end = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    const [code, by] = await ended;
    return { code, signal: by };
  };
  return {
    url: `http://127.0.0.1:${String(port)}`,
    pid: child.pid ?? 0,
    child,
    output: () => output,
    end,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) await end('SIGKILL');
    },
  };
}
