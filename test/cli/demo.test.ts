import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from '@jest/globals';
import { MerchantPerson, Person } from '../support/people.ts';

const ROOT = path.join(import.meta.dirname, '../..');
// Temporary files of the demo alone: other tests start clusters at the same time. Open to all, since Postgres runs as a user of its own.
const TMPDIR = mkdtempSync(path.join(tmpdir(), 'demo-'));
chmodSync(TMPDIR, 0o755);
afterAll(() => {
  rmSync(TMPDIR, { recursive: true });
});

function startDemo(...args: string[]): { child: ChildProcess; output: () => string } {
  // As a newcomer's shell has it: nothing set up, and its own process group, as a terminal gives it.
  const env = { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '', TMPDIR };
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(ROOT, 'scripts/demo.ts'), ...args], {
    cwd: ROOT,
    env,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.resume();
  return { child, output: () => output };
}

/** Processes whose parent, or parent's parent, is `pid`; from /proc, which is where Linux keeps them. */
function descendantsOf(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [, parent] = /^\d+ \(.*\) \S (\d+)/s.exec(readFileSync(`/proc/${entry}/stat`, 'utf8')) ?? [];
      children.set(Number(parent), [...(children.get(Number(parent)) ?? []), Number(entry)]);
    } catch {
      // It ended while we looked.
    }
  }
  const all = (of: number): number[] => (children.get(of) ?? []).flatMap((child) => [child, ...all(child)]);
  return all(pid);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** All but the cache of the TypeScript loader. */
const files = () => readdirSync(TMPDIR).filter((name) => !name.startsWith('tsx-'));

test('--once: the tour shows the three ways, a stream, usage and audit, says that a stand-in answers, and ends with 0', async () => {
  const { child, output } = startDemo('--once');
  const [code] = (await once(child, 'close')) as [number];
  expect({ code, output: output() }).toMatchObject({ code: 0 });
  for (const shown of [
    'STAND-IN',
    'source direct, account 100000000001',
    'source stored, account 100000000001',
    'source service-default, account 900000000002',
    'tokens in all',
    'Usage today',
    'USD',
    'call.admitted',
    'credential.opened',
  ]) {
    expect(output()).toContain(shown);
  }
});

test('--json: one line when ready, everything in it works, and Ctrl-C leaves no process and no file behind', async () => {
  const { child, output } = startDemo('--json');
  while (!output().includes('\n')) {
    if (child.exitCode !== null) throw new Error(output());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const facts = JSON.parse(output()) as Record<
    'baseUrl' | 'merchantId' | 'token' | 'opsToken' | 'credentialId' | 'standInUrl' | 'databaseUrl',
    string
  >;
  expect(Object.keys(facts).sort()).toEqual([
    'baseUrl',
    'credentialId',
    'databaseUrl',
    'merchantId',
    'opsToken',
    'standInUrl',
    'token',
  ]);
  const merchant = new MerchantPerson(facts.baseUrl, { ...facts, apiKeyId: '' });
  const answer = await merchant.post('/chat', {
    modelId: 'amazon.nova-micro-v1:0',
    prompt: 'hello',
    credentialId: facts.credentialId,
  });
  expect(answer.json).toMatchObject({ credentialSource: 'stored' });
  expect((await new Person(facts.baseUrl, facts.opsToken).get('/api/ops/usage')).json).toMatchObject({
    items: [{ merchantId: 'merchant-abc' }],
  });
  expect((await fetch(`${facts.standInUrl}/_stand-in/health`)).status).toBe(200);

  const processes = descendantsOf(child.pid ?? 0);
  expect(processes.length).toBeGreaterThan(1);
  expect(files()).not.toEqual([]);
  // What a terminal does: the signal goes to the whole group.
  process.kill(-(child.pid ?? 0), 'SIGINT');
  const [code] = (await once(child, 'close')) as [number];
  expect(code).toBe(0);
  expect(processes.filter(isAlive)).toEqual([]);
  expect(files()).toEqual([]);
  expect(output().trim().split('\n')).toHaveLength(1);
});
