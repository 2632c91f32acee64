import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import type { Stage } from './replay.ts';
import { newStage } from './stage.ts';

/** `script` of util-linux makes a real pseudo-terminal. Elsewhere terminal.test.ts has to do. */
const hasScript = spawnSync('script', ['--version']).status === 0;
const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const ONBOARD = path.join(import.meta.dirname, '../../scripts/onboard.ts');

let service: TestService;
let stage: Stage;
let directory: string;

beforeAll(async () => {
  service = await startTestService();
  stage = await newStage(service);
  directory = mkdtempSync(path.join(tmpdir(), 'mb-typed-'));
});
afterAll(async () => {
  rmSync(directory, { recursive: true });
  await service[Symbol.asyncDispose]();
});

/** Types each answer when its question is on the screen. The command's stdout goes to a file, as with `> made.json`. */
async function typeAnswers(
  args: readonly string[],
  answers: readonly (readonly [question: string, keys: string])[],
): Promise<{ code: number | null; screen: string; stdout: string }> {
  const file = path.join(directory, 'stdout');
  const words = [process.execPath, '--import', TSX, ONBOARD, ...args].map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['--quiet', '--return', '--command', `${words} > '${file}'`, '/dev/null'], {
    cwd: directory,
    env: { PATH: process.env['PATH'] ?? '', SHELL: '/bin/sh' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let screen = '';
  let unread = '';
  const left = [...answers];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text;
    unread += text;
    const [next] = left;
    if (next === undefined || !unread.endsWith(`${next[0]}: `)) return;
    left.shift();
    unread = '';
    child.stdin.write(next[1]);
  });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, screen: screen.replaceAll('\r\n', '\n'), stdout: readFileSync(file, 'utf8') };
}

const TOKEN = "Operator's token (not shown)";
const KEY_ID = 'AWS access key id';
const SECRET = 'AWS secret access key (not shown)';

(hasScript ? describe : describe.skip)('onboard, typed at a real terminal', () => {
  const flags = (merchant: string) => [
    ...['--url', service.url, '--merchant', merchant, '--name', 'Acme', '--region', 'us-east-1', '--json'],
  ];

  test('asks without echo, again after a mistake, and prints the result to stdout only', async () => {
    const { OPERATOR_TOKEN = '', KEY_ID: keyId = '', SECRET: secret = '' } = stage.names;
    const { code, screen, stdout } = await typeAnswers(flags('typed'), [
      [TOKEN, `${OPERATOR_TOKEN.slice(1)}\r`],
      [TOKEN, `${OPERATOR_TOKEN}\r`],
      [KEY_ID, `${keyId}x\u007f\r`],
      [SECRET, `wrong\u0015${secret}\r`],
    ]);
    expect(screen).toBe(`${TOKEN}: 
  must be an operator's token, whole: it begins with mbo_ (npm run operator-key makes one)
${TOKEN}: 
${KEY_ID}: ${keyId}x\b \b
${SECRET}: 
`);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ merchantId: 'typed' });
  });

  test('Ctrl-C in the middle of a secret: exit code 130, nothing printed, nothing written', async () => {
    const before = await stage.countRows?.();
    const { OPERATOR_TOKEN = '', KEY_ID: keyId = '', SECRET: secret = '' } = stage.names;
    const { code, screen, stdout } = await typeAnswers(flags('interrupted'), [
      [TOKEN, `${OPERATOR_TOKEN}\r`],
      [KEY_ID, `${keyId}\r`],
      [SECRET, `${secret.slice(0, 20)}\u0003`],
    ]);
    expect(screen).toBe(`${TOKEN}: 
${KEY_ID}: ${keyId}
${SECRET}: 
Not onboarded, nothing was written.
`);
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
    expect(await stage.countRows?.()).toEqual(before);
  });

  test('--secrets-stdin on a terminal is refused: it would show what is typed', async () => {
    const { code, screen, stdout } = await typeAnswers([...flags('shown'), '--secrets-stdin'], []);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(screen).toContain('  - stdin is a terminal, which shows what is typed: leave out the flag');
  });
});
