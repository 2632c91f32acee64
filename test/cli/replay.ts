import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from '@jest/globals';
import { runCommand, withPlaceholders } from './transcript.ts';

const TESTDATA = path.join(import.meta.dirname, 'testdata');
const SECTION = /^-- (command|stdin|fd 3|exit|stdout|stderr) --$/;
type Section = 'command' | 'stdin' | 'fd 3' | 'exit' | 'stdout' | 'stderr';
/** One command of a transcript: what goes in and what must come out. A section that is absent is empty. */
type Step = Partial<Record<Section, string>> & { command: string };

/** The world that a transcript is played in. */
export interface Stage {
  /** What `$NAME` stands for in commands and in what is written to them. */
  names: Readonly<Record<string, string>>;
  /** Names whose values must never come out, nor stand in the arguments of a command that does not name them. */
  secrets: readonly string[];
  /** The environment of every command. */
  env?: Record<string, string>;
  /** Counts whatever a failed command must leave as it was. */
  countRows?: () => Promise<unknown>;
}

export function transcriptsIn(folder: string): string[] {
  return readdirSync(path.join(TESTDATA, folder))
    .filter((name) => name.endsWith('.txt'))
    .map((name) => `${folder}/${name}`);
}

/**
 * Plays a transcript (test/cli/testdata/README.md) with the real commands, and compares every exit code and every byte of output.
 * Of each command it also holds: no secret comes out, none is in its arguments, and where it fails, stdout is empty and nothing was written.
 * With UPDATE_TRANSCRIPTS=1 it writes down what comes out instead.
 */
export async function replay(file: string, stage: Stage): Promise<void> {
  const { comment, steps } = parse(readFileSync(path.join(TESTDATA, file), 'utf8'));
  for (const step of steps) {
    const rowsBefore = await stage.countRows?.();
    const { code, stdout, stderr } = await play(step, stage);
    if (code !== 0) {
      expect(stdout).toBe('');
      expect(await stage.countRows?.()).toEqual(rowsBefore);
    }
    const seen = withPlaceholders({ code, stdout, stderr });
    if (process.env['UPDATE_TRANSCRIPTS'] === '1')
      Object.assign(step, { stdout: seen.stdout, stderr: seen.stderr, exit: `${String(seen.code)}\n` });
    expect(seen).toEqual({
      code: Number(step.exit ?? '0'),
      stdout: step.stdout ?? '',
      stderr: step.stderr ?? '',
    });
  }
  if (process.env['UPDATE_TRANSCRIPTS'] === '1')
    writeFileSync(path.join(TESTDATA, file), comment + steps.map(format).join('\n'));
}

async function play(step: Step, { names, secrets, env = {} }: Stage) {
  const fill = (text: string) => text.replaceAll(/\$([A-Z_]+)/g, (_all, name: string) => known(names, name));
  const [command = '', ...args] = words(step.command);
  let argumentsSeen = '';
  const transcript = await runCommand(`scripts/${command}.ts`, args.map(fill), {
    env,
    ...(step.stdin !== undefined && { stdin: fill(step.stdin) }),
    ...(step['fd 3'] !== undefined && { fd3: fill(step['fd 3']) }),
    watch: (child) => {
      argumentsSeen = readArgumentsOf(child.pid) ?? child.spawnargs.join('\0');
    },
  });
  for (const name of secrets) {
    const secret = known(names, name);
    expect(transcript.stdout + transcript.stderr).not.toContain(secret);
    if (!step.command.includes(`$${name}`)) expect(argumentsSeen).not.toContain(secret);
  }
  return transcript;
}

/** What `ps` shows of a process; undefined on systems without /proc. */
function readArgumentsOf(pid: number | undefined): string | undefined {
  try {
    return readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8');
  } catch {
    return undefined;
  }
}

function known(names: Readonly<Record<string, string>>, name: string): string {
  const value = names[name];
  if (value === undefined) throw new Error(`the transcript names $${name}, which this test does not know`);
  return value;
}

/** Splits like a shell, as far as transcripts need it: words, and 'words with spaces'. */
function words(line: string): string[] {
  return [...line.trim().matchAll(/(?:[^\s']+|'[^']*')+/g)].map(([word]) => word.replaceAll("'", ''));
}

function parse(text: string): { comment: string; steps: Step[] } {
  const steps: Step[] = [];
  let comment = '';
  let section: Section | undefined;
  for (const line of text.split(/(?<=\n)/)) {
    const name = SECTION.exec(line.trimEnd())?.[1] as Section | undefined;
    const step = steps.at(-1);
    if (name === 'command') steps.push({ command: '' });
    else if (name !== undefined && step !== undefined) step[name] = '';
    else if (section === undefined || step === undefined) comment += line;
    else step[section] = (step[section] ?? '') + line;
    section = name ?? section;
  }
  // The empty line between two steps belongs to neither.
  for (const step of steps) step.exit = step.exit?.trim() ?? '0';
  return { comment, steps };
}

function format(step: Step): string {
  const sections: Section[] = ['command', 'stdin', 'fd 3', 'stderr', 'stdout', 'exit'];
  return sections
    .filter(
      (name) =>
        step[name] !== undefined && !(step[name] === '' && name.startsWith('std') && name !== 'stdin'),
    )
    .map((name) => `-- ${name} --\n${step[name] ?? ''}`)
    .join('');
}
