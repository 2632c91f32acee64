import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { ambientProblems } from '../../src/config/ambient.ts';
import { startStandIn } from '../aws/stand-in.ts';
import { accessKey, apiKey, register } from '../contract/runtime-aws-setup.ts';
import { AMBIENT_FILE, combination, GROUPS } from './ambient-groups.ts';

const COMBINATIONS = 2 ** GROUPS.length;
const CHILDREN = 2;
const trapAt = (url: string) => ({ url, file: '/somewhere/config' });

describe('the start-up', () => {
  test('decides on every combination as docs/security.md says: by name, and by each name alone', () => {
    for (let number = 0; number < COMBINATIONS; number += 1) {
      const refused = GROUPS.filter(({ decision }, i) => decision === 'refused' && ((number >> i) & 1) === 1);
      const names = refused.flatMap(({ variables }) => Object.keys(variables(trapAt('http://trap'))));
      const env = combination(number, trapAt('http://trap'));
      const named = ambientProblems(env, []).map((problem) => problem.split(' ')[0] ?? '');
      expect(named.sort()).toEqual([...names].sort());
      // What is allowed by name is allowed alone; the rest is refused as before.
      for (const name of names) {
        const others = ambientProblems(env, [name]).map((problem) => problem.split(' ')[0] ?? '');
        expect(others.sort()).toEqual(names.filter((other) => other !== name).sort());
      }
      expect(ambientProblems(env, names)).toEqual([]);
      for (const problem of ambientProblems(env, [])) expect(problem).not.toMatch(/ambient-|ABSK|AKIA|http:/);
    }
  });

  test.each([
    ['--inspect', true],
    ['--inspect=0.0.0.0:9229', true],
    ['--max-old-space-size=4096 --inspect-brk', true],
    ['--heapsnapshot-signal=SIGUSR2', true],
    ['--max-old-space-size=4096', false],
    ['', false],
  ])('NODE_OPTIONS=%s is refused: %s', (value, refused) => {
    expect(ambientProblems({ NODE_OPTIONS: value }, []).length > 0).toBe(refused);
    expect(ambientProblems({ NODE_OPTIONS: value }, ['NODE_OPTIONS'])).toEqual([]);
  });
});

test('past the start-up the signer is the one that was chosen, in every combination', async () => {
  await using aws = await startStandIn();
  const keys = {
    stored: accessKey('ambstored'),
    direct: accessKey('ambdirect', 'session-token-of-direct'),
    'service-default': accessKey('ambdefault'),
    service: accessKey('ambservice'),
  };
  for (const key of Object.values(keys)) register(aws, key);
  register(aws, apiKey('ambient-not'));
  aws.addKmsKey({
    keyId: '0b1f4a52-1111-4222-8333-444455556666',
    alias: 'alias/vault',
    accountId: '111122223333',
    region: 'us-east-1',
  });
  const caught: string[] = [];
  const trapServer = createServer((socket) => {
    caught.push('connection');
    socket.destroy();
  });
  await once(trapServer.listen(0, '127.0.0.1'), 'listening');
  const folder = mkdtempSync(path.join(tmpdir(), 'ambient-'));
  const file = path.join(folder, 'config');
  writeFileSync(file, AMBIENT_FILE);
  const trap = { url: `http://127.0.0.1:${String((trapServer.address() as AddressInfo).port)}`, file };
  try {
    const each = COMBINATIONS / CHILDREN;
    const ranges = Array.from({ length: CHILDREN }, (_, i) => [i * each, (i + 1) * each - 1] as const);
    const results = Object.assign(
      {},
      ...(await Promise.all(ranges.map((range) => runChild(aws.url, JSON.stringify(trap), range)))),
    ) as Record<string, Record<string, string>>;
    expect(Object.keys(results)).toHaveLength(COMBINATIONS);
    const first = results['0'];
    expect(first).toMatchObject({
      'stored converse': '200',
      'direct converse-stream': '200',
      vault: 'access-key',
    });
    for (const [number, said] of Object.entries(results))
      expect({ number, said }).toEqual({ number, said: first });
  } finally {
    trapServer.close();
    rmSync(folder, { recursive: true });
  }
  expect(caught).toEqual([]);
  const bearer = createHash('sha256').update('ABSKambient-not').digest('hex').slice(0, 16);
  const counted = new Map<string, number>();
  for (const {
    service,
    operation,
    verified,
    region,
    accessKeyId,
    bearerFingerprint,
    status,
  } of aws.journal) {
    expect({ verified, status, region: region ?? 'us-east-1' }).toEqual({
      verified: true,
      status: 200,
      region: 'us-east-1',
    });
    const signer = accessKeyId ?? bearerFingerprint ?? 'nobody';
    const of = `${service} ${operation} ${signer}`;
    counted.set(of, (counted.get(of) ?? 0) + 1);
  }
  const merchants = [keys.stored, keys.direct, keys['service-default']].map(({ accessKeyId }) => accessKeyId);
  const expected = [
    ...merchants.flatMap((id) => [
      `bedrock-runtime Converse ${id}`,
      `bedrock-runtime ConverseStream ${id}`,
      `bedrock GetFoundationModel ${id}`,
      `sts GetCallerIdentity ${id}`,
    ]),
    `bedrock-runtime Converse ${bearer}`,
    ...['kms GenerateDataKey', 'kms Decrypt'].map((of) => `${of} ${keys.service.accessKeyId}`),
    ...['CreateSecret', 'GetSecretValue', 'DeleteSecret'].map(
      (of) => `secretsmanager ${of} ${keys.service.accessKeyId}`,
    ),
  ];
  expect(Object.fromEntries(counted)).toEqual(Object.fromEntries(expected.map((of) => [of, COMBINATIONS])));
}, 60_000);

async function runChild(url: string, trap: string, [from, to]: readonly [number, number]): Promise<object> {
  const script = path.join(import.meta.dirname, 'ambient-child.ts');
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', '--no-warnings', script, url, trap, String(from), String(to)],
    { env: { PATH: process.env['PATH'] ?? '' }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`the process ended with code ${String(code)}:\n${errors}`);
  return JSON.parse(output) as object;
}
