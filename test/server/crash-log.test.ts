import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { newTestDatabase } from '../support/database.ts';
import { startServiceProcess } from '../support/process.ts';
import { environmentFor, registerServiceAccount } from '../support/service-environment.ts';
import { entryOf } from '../support/transpiled.ts';

/** Looks like no secret, so that nothing but leaving the message out keeps it from the log. */
const SAID = 'what-merchant-a-asked-of-its-model';
/** Loaded before the service, in its process: a signal is an error of this kind. */
const BROKEN = `
  class Broken extends Error {
    name = 'Broken';
    code = 'E_BROKEN';
  }
  const broken = () => new Broken(${JSON.stringify(`${SAID}\n    at ${SAID} (of a message)`)});
  const KINDS = {
    thrown: () => { throw broken(); },
    rejected: () => { void Promise.reject(broken()); },
    odd: () => { throw Object.defineProperty(broken(), 'code', { get() { throw broken(); } }); },
  };
  process.on('SIGUSR2', () => KINDS[process.env.BROKEN]());
`;

let folder: string;
let database: Awaited<ReturnType<typeof newTestDatabase>>;
let standIn: StandIn;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'crash-log-'));
  writeFileSync(path.join(folder, 'broken.mjs'), BROKEN);
  database = await newTestDatabase();
  standIn = await startStandIn();
});
afterAll(async () => {
  await standIn.close();
  await database[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

test.each([
  ['thrown', { error: 'Broken(E_BROKEN)', at: expect.stringMatching(/^at broken /) }, 'error'],
  ['rejected', { error: 'Broken(E_BROKEN)', at: expect.stringMatching(/^at broken /) }, 'silent'],
  ['odd', {}, 'error'],
])(
  'an error that nobody catches ends the process, and says nothing of what it says: %s',
  async (kind, said, level) => {
    const { arn } = registerServiceAccount(standIn);
    const env = { ...environmentFor(database.url, standIn.url, arn), BROKEN: kind, LOG_LEVEL: level };
    await using service = await startServiceProcess(
      env,
      [],
      ['--import', path.join(folder, 'broken.mjs'), ...entryOf('src/main.ts')],
    );
    const { child, output } = service;
    const closed = new Promise((resolve) => child.once('close', resolve));
    const before = output().length;
    expect(await service.end('SIGUSR2')).toEqual({ code: 70, signal: null });
    await closed;
    const lines = output()
      .slice(before)
      .split('\n')
      .filter((line) => line !== '');
    expect(output()).not.toContain(SAID);
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
      { level: 50, time: expect.any(String), msg: 'ended: nobody caught an error', ...said },
    ]);
  },
);
