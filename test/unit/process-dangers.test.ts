import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { coreLimitOf, processProblems } from '../../src/config/process-dangers.ts';
import type { ProcessFacts } from '../../src/config/process-dangers.ts';

const SAFE: ProcessFacts = { execArgv: [], nodeOptions: undefined, coreLimit: '0', inspecting: false };
const FILE = path.join(import.meta.dirname, '../../src/config/process-dangers.ts');
const ENV = path.join(import.meta.dirname, '../../src/config/env.ts');

describe('a process in production', () => {
  test.each([
    ['--inspect', /inspector/],
    ['--inspect=0.0.0.0:9229', /inspector/],
    ['--inspect-brk', /inspector/],
    ['--inspect_port=1', /inspector/],
    ['--debug-port=1', /inspector/],
    ['--heapsnapshot-signal=SIGUSR2', /memory/],
    ['--heapsnapshot-near-heap-limit=1', /memory/],
    ['--heap-prof', /memory/],
    ['--report-on-signal', /reports/],
    ['--report-uncaught-exception', /reports/],
    ['--abort-on-uncaught-exception', /core/],
    ['--abort_on_uncaught_exception', /core/],
    ['--tls-keylog=/tmp/canary', /keys/],
    ['--insecure-http-parser', /reads/],
  ])('does not start with %s, on the command line or in NODE_OPTIONS', (option, says) => {
    const problems = [
      processProblems({ ...SAFE, execArgv: ['--enable-source-maps', option] }),
      processProblems({ ...SAFE, nodeOptions: `--max-old-space-size=512 ${option}` }),
      processProblems({ ...SAFE, nodeOptions: `"${option}"` }),
    ];
    for (const list of problems) {
      expect(list).toEqual([expect.stringMatching(says)]);
      expect(list.join()).not.toMatch(/canary|0\.0\.0\.0/);
    }
    expect(problems[1]?.[0]).toContain('NODE_OPTIONS');
  });

  test('starts with what is harmless, and without core files only', () => {
    const execArgv = [
      '--enable-source-maps',
      '--disable-proto=throw',
      '--max-old-space-size=2048',
      '--import',
      'x',
    ];
    expect(processProblems({ ...SAFE, execArgv })).toEqual([]);
    expect(processProblems({ ...SAFE, coreLimit: undefined })).toEqual([]);
    expect(processProblems({ ...SAFE, coreLimit: 'unlimited' })).toEqual([
      expect.stringContaining('ulimit -c 0'),
    ]);
    expect(processProblems({ ...SAFE, coreLimit: '4096' })).toHaveLength(1);
    expect(processProblems({ ...SAFE, inspecting: true })).toEqual([expect.stringContaining('inspector')]);
  });

  test('knows the limit as Linux writes it', () => {
    const limits =
      'Limit                     Soft Limit           Hard Limit           Units\nMax core file size        unlimited            unlimited            bytes\n';
    expect(coreLimitOf(limits)).toBe('unlimited');
    expect(coreLimitOf('')).toBeUndefined();
  });
});

/** Runs a line with the code as it is, as tsx runs it. */
const run = (code: string) => ['--import', 'tsx', '--input-type=module', '-e', code];

test('the check sees the process that it runs in, and only in production', () => {
  const check = (environment: string, shell: string) =>
    spawnSync(
      'sh',
      [
        '-c',
        `${shell} "$0" "$@"`,
        process.execPath,
        ...run(
          `const { assertSafeProcess } = await import(${JSON.stringify(ENV)}); assertSafeProcess({ environment: '${environment}' });`,
        ),
      ],
      {
        encoding: 'utf8',
        env: { PATH: process.env['PATH'] },
      },
    );
  expect(check('production', 'ulimit -S -c 0;').status).toBe(0);
  const abort = check(
    'production',
    'ulimit -S -c 0; NODE_OPTIONS=--abort-on-uncaught-exception=no; NODE_OPTIONS=--report-on-signal',
  );
  expect(abort.stderr).toContain('NODE_OPTIONS has --report-on-signal');
  expect(check('test', 'NODE_OPTIONS=--report-on-signal').status).toBe(0);
});

(process.platform === 'linux' ? test : test.skip)('SIGUSR1 opens no inspector', async () => {
  const code = `const { ignoreInspectorSignal } = await import(${JSON.stringify(FILE)});
    const { url } = await import('node:inspector');
    ignoreInspectorSignal();
    process.on('SIGUSR1', () => setTimeout(() => { process.stdout.write(String(url())); process.exit(); }, 200));
    process.stdout.write('ready ');
    setInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, run(code), { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
    if (text === 'ready ') child.kill('SIGUSR1');
  });
  await once(child, 'close');
  expect(text).toBe('ready undefined');
});
