import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { ConverseCommand } from '@aws-sdk/client-bedrock-runtime';
import { ALICE, NOVA, refusal, runtimeClient, startWithMerchants, userSays } from './clients.ts';
import { startStandIn } from '../../aws/stand-in.ts';
import type { JournalEntry } from '../../aws/journal.ts';
import type { StandIn } from '../../aws/stand-in.ts';
import { eventually, until } from '../../support/until.ts';

const ask = new ConverseCommand({ modelId: NOVA, messages: userSays('hi') });
let standIn: StandIn;
beforeAll(async () => {
  standIn = await startWithMerchants();
});
afterEach(() => {
  standIn.forget();
});
afterAll(() => standIn.close());

test('the control surface reads the journal and sets faults', async () => {
  const visit = (path: string, init?: RequestInit) => fetch(`${standIn.url}/_stand-in/${path}`, init);
  expect((await visit('health')).headers.get('x-stand-in')).toBe('merchant-bedrock-test');
  const rule = { operation: 'Converse', status: 503, type: 'ServiceUnavailableException' };
  expect((await visit('faults', { method: 'POST', body: JSON.stringify(rule) })).status).toBe(201);
  expect((await visit('faults', { method: 'POST', body: '{"misspelt":1}' })).status).toBe(400);
  expect((await refusal(runtimeClient(standIn).send(ask))).status).toBe(503);
  await visit('faults', { method: 'POST', body: JSON.stringify(rule) });
  await visit('faults', { method: 'DELETE' });
  await runtimeClient(standIn).send(ask);
  const journal = (await (await visit('journal')).json()) as JournalEntry[];
  expect(journal.map(({ status }) => status)).toEqual([503, 200]);
  expect(journal[1]?.headers).toMatchObject({ authorization: '[present]' });
});

test('the journal file has a line before the answer and one after', async () => {
  const journalFile = join(mkdtempSync(join(tmpdir(), 'stand-in-')), 'journal.jsonl');
  await using other = await startStandIn({ journalFile });
  other.addAccessKey(ALICE);
  other.fault({ beforeHeadersHangMs: 1_500 });
  const answer = runtimeClient(other).send(ask);
  await until('it is received', () => other.journal.length > 0);
  const lines = () =>
    readFileSync(journalFile, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as JournalEntry & { event: string });
  expect(lines().map(({ event, outcome }) => [event, outcome])).toEqual([['received', 'open']]);
  await answer;
  // The client has its answer before that is written down.
  const [, last] = await eventually(lines, ({ length }) => length > 1);
  expect(last).toMatchObject({
    event: 'finished',
    outcome: 'completed',
    executed: true,
    usage: { input: 1 },
  });
});

test('close ends connections that wait', async () => {
  const other = await startStandIn();
  other.addAccessKey(ALICE);
  other.fault({ hangHeaders: true });
  const waiting = refusal(runtimeClient(other, 'h1').send(ask));
  await until('it is received', () => other.journal.length > 0);
  await other.close();
  expect((await waiting).status).toBeUndefined();
});

describe('nonsense does no harm', () => {
  const alive = async () => (await fetch(`${standIn.url}/_stand-in/health`)).status;

  test.each([
    ['a request line that is none', 'garbage\r\n\r\n'],
    ['half a preface', 'PRI * HT'],
    ['a byte', 'P'],
    ['a bad preface', 'PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n'],
  ])('%s', async (_name, bytes) => {
    await new Promise<void>((resolve) => {
      const socket = createConnection(Number(new URL(standIn.url).port), '127.0.0.1', () =>
        socket.end(bytes),
      );
      socket
        .on('error', () => undefined)
        .on('close', () => {
          resolve();
        })
        .resume();
      setTimeout(() => {
        socket.destroy();
      }, 100).unref();
    });
    expect(await alive()).toBe(200);
  });

  test.each([
    ['an unknown path', '/nowhere', 404],
    ['a bad escape', '/model/%E0%A4%A/converse', 404],
    ['an unknown target', '/', 404],
  ])('%s', async (_name, path, status) => {
    standIn.addBedrockApiKey({ apiKey: 'ABSKx', accountId: '333333333333' });
    const init = { method: 'POST', body: '\u0000{', headers: { authorization: 'Bearer ABSKx' } };
    const answer = await fetch(`${standIn.url}${path}`, init);
    expect(answer.status).toBe(status);
    expect(answer.headers.get('x-amzn-errortype')).toMatch(/^UnknownOperationException:/);
  });

  test('a body that is no JSON, and one that is too large', async () => {
    standIn.addBedrockApiKey({ apiKey: 'ABSKx', accountId: '333333333333' });
    for (const body of ['{', '', 'x'.repeat(25_000_001)]) {
      const init = { method: 'POST', body, headers: { authorization: 'Bearer ABSKx' } };
      const answer = await fetch(`${standIn.url}/model/${NOVA}/converse`, init);
      expect(answer.status).toBe(400);
      expect(answer.headers.get('x-amzn-errortype')).toMatch(/^ValidationException:/);
    }
  });

  test('a client that leaves in the middle of its body', async () => {
    const session = connect(standIn.url);
    const stream = session.request({ ':method': 'POST', ':path': `/model/${NOVA}/converse` });
    stream.on('error', () => undefined);
    await new Promise((resolve) => stream.write('{"messages"', resolve));
    await new Promise((resolve) => setTimeout(resolve, 30));
    session.destroy();
    await until('that is noticed', () => standIn.journal[0]?.outcome === 'client-aborted');
    expect(await alive()).toBe(200);
  });
});

describe('the command', () => {
  const command = ['--import', 'tsx', 'test/aws/main.ts'];

  test('says what it is, registers keys, and stops on SIGTERM', async () => {
    const child = spawn(process.execPath, [
      ...command,
      '--access-key',
      `${ALICE.accessKeyId}:${ALICE.secretAccessKey}:${ALICE.accountId}`,
    ]);
    let printed = '';
    for await (const chunk of child.stdout) {
      printed += String(chunk);
      if (printed.includes('listening')) break;
    }
    expect(printed).toContain('THIS IS NOT AWS');
    const url = /listening on (\S+)/.exec(printed)?.[1] ?? '';
    const answer = await runtimeClient({ url } as StandIn).send(ask);
    expect(answer.output?.message?.content?.[0]?.text).toContain(ALICE.accountId);
    const code = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    expect(await code).toBe(0);
  });

  test('does not show what it could not read', () => {
    const { status, stderr } = spawnSync(process.execPath, [...command, '--access-key', 'AKIA:very-secret']);
    expect(status).toBe(2);
    expect(stderr.toString()).toContain('--access-key ID:SECRET:ACCOUNT');
    expect(stderr.toString()).not.toContain('very-secret');
  });
});
