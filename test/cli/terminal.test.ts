import { spawnSync } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { askForSecrets } from '../../scripts/cli/onboard-secrets.ts';
import { Interrupted } from '../../scripts/cli/run.ts';
import type { TerminalInput } from '../../scripts/cli/terminal.ts';

const SECRET = 'CANARYkey7MDENGbPxRfiCYwJalrXUtnFEMI0123';
const FLAGS = { merchant: 'acme', name: 'Acme', region: 'us-east-1' };
const QUESTION_ONE = 'AKIAQWERTYUIOPASDFGH\r';

/** A terminal that somebody types on. */
class Typist extends EventEmitter implements TerminalInput {
  readonly modes: boolean[] = [];
  setRawMode(on: boolean): void {
    this.modes.push(on);
  }
  setEncoding(): void {
    // It speaks UTF-8 already.
  }
  resume(): void {
    // What is typed arrives anyway.
  }
  pause(): void {
    // As above.
  }
}

async function type(...chunks: string[]) {
  const input = new Typist();
  let shown = '';
  const asked = askForSecrets(FLAGS, input, { write: (text: string) => (shown += text) });
  for (const chunk of chunks) input.emit('data', chunk);
  const outcome = await asked.catch((error: unknown) => error);
  return { outcome, shown, modes: input.modes, listeners: input.listenerCount('data') };
}

describe('the prompt', () => {
  test('shows nothing of a secret, takes Backspace, Ctrl-U and pastes, and leaves the terminal as it was', async () => {
    const { outcome, shown, modes, listeners } = await type(
      QUESTION_ONE,
      'wrong\u0015',
      `\u001b[200~${SECRET.slice(0, 20)}`,
      `zz\u007f\b${SECRET.slice(20)}\u001b[201~`,
      '\r',
    );
    expect(outcome).toEqual({ awsAccessKeyId: 'AKIAQWERTYUIOPASDFGH', awsSecretAccessKey: SECRET });
    for (const part of [SECRET, SECRET.slice(0, 8), 'wrong', 'zz', '*']) expect(shown).not.toContain(part);
    expect({ modes, listeners }).toEqual({ modes: [true, false], listeners: 0 });
  });

  test('asks again for what cannot be right, and says why without repeating it', async () => {
    const { outcome, shown } = await type(QUESTION_ONE, 'CANARY\r', `${SECRET}\r`);
    expect(outcome).toMatchObject({ awsSecretAccessKey: SECRET });
    expect(shown).toContain('must be the 40 characters that AWS showed');
    expect(shown).not.toContain('CANARY');
  });

  test.each([
    ['Ctrl-C', '\u0003'],
    ['Ctrl-C after half a secret', `${SECRET.slice(0, 20)}\u0003`],
    ['Ctrl-D with nothing typed', '\u0004'],
  ])('%s ends it, with the terminal as it was', async (_name, keys) => {
    const { outcome, shown, modes, listeners } = await type(QUESTION_ONE, keys);
    expect(outcome).toBeInstanceOf(Interrupted);
    expect(shown).not.toContain('CANARY');
    expect({ modes, listeners }).toEqual({ modes: [true, false], listeners: 0 });
  });
});

/** Runs a command on a real pseudo-terminal, types each answer when its prompt is there, and prints all that the terminal showed. */
const PTY = `
import json, os, pty, sys
answers = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
shown = b""
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    shown += data
    if answers and shown.endswith(answers[0][0].encode()):
        os.write(fd, answers.pop(0)[1].encode())
status = os.waitpid(pid, 0)[1]
print(json.dumps({"code": os.waitstatus_to_exitcode(status), "shown": shown.decode()}))
`;
const hasPty = spawnSync('python3', ['-c', 'import pty']).status === 0;

(hasPty ? test : test.skip)(
  'on a real terminal nothing of a secret is echoed, and Ctrl-C ends with 130',
  () => {
    const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
    const script = path.join(import.meta.dirname, '../../scripts/onboard.ts');
    const flags = [
      '--url',
      'https://bedrock.example.com',
      '--merchant',
      'acme',
      '--name',
      'Acme',
      '--region',
      'us-east-1',
    ];
    const answers = JSON.stringify([
      [': ', 'CANARY-not-a-token\r'],
      [': ', 'CANARY-half\u0003'],
    ]);
    const { stdout } = spawnSync(
      'python3',
      ['-c', PTY, answers, process.execPath, '--import', tsx, script, ...flags],
      { encoding: 'utf8', timeout: 20_000, env: { PATH: process.env['PATH'] ?? '' } },
    );
    const { code, shown } = JSON.parse(stdout) as { code: number; shown: string };
    expect(code).toBe(130);
    expect(shown).toContain("must be an operator's token");
    expect(shown).toContain('Not onboarded, nothing was written.');
    expect(shown).not.toContain('CANARY');
  },
);
