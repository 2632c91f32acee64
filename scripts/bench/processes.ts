import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Failure } from '../cli/run.ts';

const ROOT = path.join(import.meta.dirname, '../..');
/** On Node 20 every AWS SDK says once that its successors will want 22. */
const QUIET = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };
const STOP_MS = 15_000;

const living = new Set<ChildProcess>();
/** The last resort, when nobody waits for an orderly end any more. */
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});

export interface StartOptions {
  /** What Node is told to run. */
  args: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Takes what it writes. */
  logFile: string;
  /** The port it listens on, from its messages or its log; undefined: not yet. */
  portOf: (message: unknown, log: string) => number | undefined;
}

export interface Running {
  pid: number;
  port: number;
  child: ChildProcess;
  /** SIGTERM, and SIGKILL when that does not help. Waits for the end. */
  stop: () => Promise<void>;
}

/** Starts a Node process with nothing of this one's environment, and waits until it listens. @throws Failure with the end of its log */
export async function start({ args, env = {}, logFile, portOf }: StartOptions): Promise<Running> {
  const log = openSync(logFile, 'w');
  const child = spawn(process.execPath, [...args], {
    cwd: ROOT,
    env: { ...env, ...QUIET, PATH: process.env['PATH'] ?? '' },
    stdio: ['ignore', log, log, 'ipc'],
    // Ctrl-C reaches the whole group of a terminal; these are stopped by their ids, in order.
    detached: true,
  });
  closeSync(log);
  living.add(child);
  child.once('exit', () => living.delete(child));
  const ended = once(child, 'exit');
  let port: number | undefined;
  child.once('message', (message) => {
    port = portOf(message, '');
  });
  while (port === undefined) {
    await Promise.race([sleep(20), ended]);
    port ??= portOf(undefined, readFileSync(logFile, 'utf8'));
    if (port === undefined && (child.exitCode !== null || child.signalCode !== null))
      throw new Failure(`${args.join(' ')} ended before it listened:\n${tail(logFile)}`);
  }
  return { pid: child.pid ?? 0, port, child, stop: () => stop(child) };
}

export function tail(logFile: string): string {
  return readFileSync(logFile, 'utf8').slice(-2_000);
}

/** The way to a file of this folder, as Node's command line takes it. */
export function fromSource(file: URL): string[] {
  return ['--import', 'tsx', fileURLToPath(file)];
}

export function portOfMessage(message: unknown): number | undefined {
  return (message as { port?: number } | undefined)?.port;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended;
  clearTimeout(kill);
}
