import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import type { Writable } from 'node:stream';
import { entryOf } from '../support/transpiled.ts';

/** Without .env, so that nothing comes from the developer's own settings. */
const ELSEWHERE = tmpdir();

export interface Transcript {
  code: number | null;
  stdout: string;
  stderr: string;
}

interface RunOptions {
  env?: Record<string, string>;
  /** What is written to stdin; absent: /dev/null. */
  stdin?: string;
  /** What is written to file descriptor 3; absent: it is not open. */
  fd3?: string;
  cwd?: string;
  /** Told of the child while it runs. */
  watch?: (child: ChildProcess) => void;
}

/** Runs a command as `npm run` would, in an environment that holds `env` and nothing else. */
export async function runCommand(
  script: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Transcript> {
  const { env = {}, stdin, fd3, cwd = ELSEWHERE, watch } = options;
  const child = spawn(process.execPath, [...entryOf(script), ...args], {
    cwd,
    env: { ...env, PATH: process.env['PATH'] ?? '', TMPDIR: ELSEWHERE },
    stdio: [
      stdin === undefined ? 'ignore' : 'pipe',
      'pipe',
      'pipe',
      ...(fd3 === undefined ? [] : ['pipe' as const]),
    ],
  });
  feed(child.stdin, stdin);
  feed(child.stdio[3] as Writable | undefined, fd3);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  watch?.(child);
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

/** What differs from run to run, by name. */
export function withPlaceholders({ code, stdout, stderr }: Transcript): Transcript {
  return { code, stdout: placeholders(stdout), stderr: placeholders(stderr) };
}

function placeholders(text: string): string {
  return (
    text
      .replaceAll(/\bmb([ko])_(live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b/g, '<mb$1 $2 token>')
      .replaceAll(/\bcred_[0-9A-Za-z]{22}\b/g, '<credential>')
      .replaceAll(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\b/g, '<date>')
      .replaceAll(/((?:API key|operator key|apiKeyId":|"id":) *"?)[0-9A-Za-z]{12}\b/g, '$1<key id>')
      .replaceAll(/(requestId: )\S+/g, '$1<request id>')
      // A connection that is closed under a request: which of the two it is, is a matter of milliseconds.
      .replaceAll(/\b(UND_ERR_SOCKET|ECONNRESET)\b/g, '<broken>')
      .replaceAll(/https?:\/\/(127\.0\.0\.1|localhost):\d+/g, '<url>')
  );
}

function feed(stream: Writable | null | undefined, text: string | undefined): void {
  // A command that refuses its arguments does not read what it was sent.
  stream?.on('error', () => undefined);
  stream?.end(text);
}
