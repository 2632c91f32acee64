import { describe, expect, test } from '@jest/globals';
import { HttpReader } from '../../scripts/bench/http-reader.ts';
import { readPlan } from '../../scripts/bench/options.ts';
import { parseStat, parseStatusKb } from '../../scripts/bench/proc.ts';
import { ownerOf, summarizeProfile } from '../../scripts/bench/profile-summary.ts';
import { errorsOf, figuresOf, render } from '../../scripts/bench/report.ts';
import { markdownTable, number } from '../../scripts/bench/report-table.ts';
import type { NeighbourCell } from '../../scripts/bench/neighbours.ts';
import type { Results } from '../../scripts/bench/report.ts';
import { Signer } from '../../scripts/bench/sigv4.ts';
import { median, percentile, spread, summarize } from '../../scripts/bench/statistics.ts';
import type { Round } from '../../scripts/bench/job.ts';
import { startStandIn } from '../aws/stand-in.ts';
import { AWS } from '../support/aws-keys.ts';

describe('statistics', () => {
  test('a percentile is a value that was measured', () => {
    const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
    expect(percentile(hundred, 0.5)).toBe(50);
    expect(percentile(hundred, 0.99)).toBe(99);
    expect(percentile(hundred, 1)).toBe(100);
    expect(percentile(hundred, 0)).toBe(1);
    expect(percentile([7], 0.5)).toBe(7);
    expect(percentile([], 0.5)).toBeNaN();
  });

  test('a median of an even number is between the two in the middle, and leaves its argument alone', () => {
    const values = [10, 2, 9, 1];
    expect(median(values)).toBe(5.5);
    expect(values).toEqual([10, 2, 9, 1]);
    expect(median([3, 1, 20])).toBe(3);
    expect(median([])).toBeNaN();
    expect(spread([90, 100, 110])).toBeCloseTo(0.2);
  });

  test('latencies are sorted as numbers', () => {
    expect(summarize([10, 9, 100, 8])).toEqual({ count: 4, p50: 9, p99: 100, max: 100 });
  });
});

describe('/proc', () => {
  const line = (name: string) =>
    `4242 (${name}) S 17 4242 4242 0 -1 4194304 100 200 0 0 31 11 5 7 20 0 11 0 99 1000 50 18446744073709551615\n`;

  test('a name may hold blanks and brackets', () => {
    for (const name of ['node', 'postgres: a b', 'odd) S 1 (name'])
      expect(parseStat(line(name))).toEqual({
        pid: 4242,
        name,
        parent: 17,
        ticks: 42,
        childrenTicks: 12,
      });
  });

  test('what is no such line is an error, not zero', () => {
    for (const text of ['', '1 (node) S 1', 'no brackets at all']) expect(() => parseStat(text)).toThrow();
  });

  test('VmRSS is found among its neighbours', () => {
    const status = 'Name:\tnode\nVmHWM:\t  999 kB\nVmRSS:\t  2048 kB\nRssAnon:\t 1 kB\n';
    expect(parseStatusKb(status, 'VmRSS')).toBe(2_048);
    expect(() => parseStatusKb(status, 'VmSwap')).toThrow('VmSwap');
  });
});

describe('the reader of answers', () => {
  const whole = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\nhello';
  const chunked =
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n10\r\nlo, and goodbye!\r\n0\r\n\r\n';

  test.each([
    ['with a length', whole, 'hello'],
    ['in chunks', chunked, 'hello, and goodbye!'],
    ['empty', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', ''],
  ])('%s, cut anywhere, twice on one connection', (_name, text, body) => {
    for (let cut = 1; cut < text.length; cut += 1) {
      const reader = new HttpReader();
      for (let time = 0; time < 2; time += 1) {
        expect(reader.push(Buffer.from(text.slice(0, cut)))).toBe(false);
        expect(reader.push(Buffer.from(text.slice(cut)))).toBe(true);
        expect(reader.take().toString()).toBe(body);
      }
    }
  });

  test('a status that is not 200 is read too; what is no answer is an error', () => {
    const reader = new HttpReader();
    expect(reader.push(Buffer.from('HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n'))).toBe(true);
    expect(reader.status).toBe(503);
    for (const text of ['SSH-2.0\r\n\r\n', 'HTTP/1.1 200 OK\r\n\r\n'])
      expect(() => new HttpReader().push(Buffer.from(text))).toThrow();
    expect(() =>
      new HttpReader().push(Buffer.from('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n')),
    ).toThrow('not a chunk');
  });
});

test('the bare signature is one that AWS would take', async () => {
  await using standIn = await startStandIn();
  standIn.addAccessKey(AWS.merchantA);
  const { accessKeyId, secretAccessKey } = AWS.merchantA;
  const signer = new Signer({ accessKeyId, secretAccessKey, region: 'eu-central-1' });
  const body = Buffer.from(JSON.stringify({ messages: [{ role: 'user', content: [{ text: 'Grüezi' }] }] }));
  const url = new URL('/model/amazon.nova-micro-v1%3A0/converse', standIn.url);
  // The second one uses the day's key again.
  for (let time = 0; time < 2; time += 1) {
    const { host: _host, ...headers } = signer.sign({
      method: 'POST',
      host: url.host,
      path: url.pathname,
      contentType: 'application/json',
      body,
    });
    const answer = await fetch(url, { method: 'POST', headers, body });
    expect(answer.status).toBe(200);
  }
  expect(standIn.journal.map(({ verified }) => verified)).toEqual([true, true]);
});

describe('the plan', () => {
  test('everything, unless said otherwise', () => {
    expect(readPlan([])).toMatchObject({
      routes: ['invoke', 'converse', 'converse-stream'],
      targets: ['direct', 'bare', 'one', 'many'],
      inFlight: [1, 16, 64, 256],
      rounds: 5,
      merchants: 1_000,
      streams: 1_000,
      profileSeconds: 0,
    });
    expect(readPlan(['--help'])).toBeUndefined();
  });

  test('--only chooses within what it names and leaves the rest whole', () => {
    expect(readPlan(['--only', 'load,converse,many,direct,16'])).toMatchObject({
      routes: ['converse'],
      targets: ['direct', 'many'],
      inFlight: [16],
      streams: 0,
      neighbourSeconds: 0,
    });
    expect(readPlan(['--only', 'neighbours'])).toMatchObject({
      targets: [],
      streams: 0,
      neighbourSeconds: 8,
    });
    expect(readPlan(['--only', 'memory'])).toMatchObject({ targets: [], streams: 1_000, profileSeconds: 0 });
    expect(readPlan(['--only', 'profile', '--quick'])).toMatchObject({
      targets: [],
      streams: 0,
      profileSeconds: 5,
    });
  });

  test.each([
    [['--only', 'chat'], 'chat'],
    [['--seconds', '0'], '--seconds'],
    [['--seconds', 'long'], '--seconds'],
    [['--rounds', '1.5'], '--rounds'],
    [['--fast'], 'argument'],
  ])('%j is refused', (args, hint) => {
    expect(() => readPlan(args)).toThrow(hint);
  });
});

describe('the profile', () => {
  const frame = (functionName: string, url: string) => ({ functionName, url, lineNumber: 9 });
  const modules = 'file:///srv/app/node_modules';

  test.each([
    ['express', `${modules}/router/lib/layer.js`],
    ['prisma', `${modules}/@prisma/client/runtime/client.js`],
    ['prisma', `${modules}/@prisma/adapter-pg/dist/index.mjs`],
    ['prisma', 'file:///srv/app/dist/generated/prisma/client.js'],
    ['prisma (wasm)', 'wasm://wasm/0095f2e6'],
    ['pg', `${modules}/pg/lib/client.js`],
    ['pg', `${modules}/pg-protocol/dist/parser.js`],
    ['aws sdk', `${modules}/@smithy/core/dist-cjs/index.js`],
    ['passport', `${modules}/passport-http-bearer/lib/strategy.js`],
    ['pino', `${modules}/sonic-boom/index.js`],
    ['zod', `${modules}/zod/v4/core/parse.js`],
    ['lru-cache', `${modules}/outer/node_modules/lru-cache/dist/index.js`],
    ['ours: gateway', 'file:///srv/app/dist/gateway/gateway.js'],
    ['ours: http', 'file:///srv/app/src/http/handlers/model/wire.ts'],
    ['ours: root', 'file:///srv/app/dist/main.js'],
    ['node internals', 'node:internal/streams/writable'],
    ['native (no frame)', ''],
  ])('%s owns %s', (owner, url) => {
    expect(ownerOf(frame('f', url))).toBe(owner);
  });

  test('self time inside the window; internals charged to their caller; idle apart', () => {
    const profile = {
      startTime: 1_000,
      nodes: [
        { id: 1, callFrame: frame('(root)', ''), children: [2, 5, 6] },
        { id: 2, callFrame: frame('query', `${modules}/pg/lib/client.js`), children: [3] },
        { id: 3, callFrame: frame('write', 'node:net'), children: [4] },
        { id: 4, callFrame: frame('writev', '') },
        { id: 5, callFrame: frame('(idle)', '') },
        { id: 6, callFrame: frame('(garbage collector)', '') },
      ],
      samples: [2, 2, 3, 4, 5, 6, 2],
      timeDeltas: [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000],
    };
    const summary = summarizeProfile(profile, { from: 1_500, to: 40_000 });
    expect(summary).toMatchObject({ busyMs: 23, idleMs: 8 });
    expect(summary.byOwner).toEqual([
      { name: 'garbage collector', ms: 16 },
      { name: 'native (no frame)', ms: 4 },
      { name: 'node internals', ms: 2 },
      { name: 'pg', ms: 1 },
    ]);
    expect(summary.byCaller).toEqual([
      { name: 'garbage collector', ms: 16 },
      { name: 'pg', ms: 7 },
    ]);
    expect(summary.top[3]).toEqual({ name: 'query pg/lib/client.js:10', ms: 1 });
  });
});

describe('the report', () => {
  const round = (count: number, p50: number, errors = 0): Round => ({
    seconds: 2,
    latency: { count, p50, p99: p50 * 2, max: p50 * 3 },
    firstByte: { count, p50, p99: p50, max: p50 },
    cpuMs: { service: 200, bareProxy: 30, standIn: 50, postgres: 100 },
    ownCpuMs: 10,
    errors,
    ...(errors > 0 && { firstError: 'status 503' }),
  });
  const cell = (target: 'direct' | 'many', ...rounds: Round[]) =>
    ({ route: 'converse', inFlight: 16, target, rounds }) as const;
  const tally = (p50: number, count = 100, refused = 0) => ({
    latency: { count, p50, p99: p50 * 2, max: p50 * 3 },
    refused,
    errors: 0,
  });
  const beside = (flood: 'none' | 'fifty-times', p50: number, refused = 0): NeighbourCell => ({
    flood,
    seconds: 2,
    rounds: [{ others: tally(p50), ...(flood !== 'none' && { flood: tally(50, 400, refused) }) }],
  });
  const results: Results = {
    machine: {
      date: '2026-01-31',
      cpu: 'Some CPU',
      cores: 2,
      memoryGb: 8,
      node: 'v20.19.0',
      postgres: '18.4',
      fsync: 'on',
      synchronousCommit: 'on',
      commitMs: 0.5,
      loadBefore: 0.1,
      built: true,
      merchants: 1_000,
      rounds: 3,
      seconds: 2,
    },
    cells: [
      cell('direct', round(2_000, 1), round(2_200, 1.5), round(1_800, 2)),
      cell('many', round(200, 10), round(400, 12), round(100, 90)),
    ],
    neighbours: [beside('none', 10), beside('fifty-times', 15, 200)],
    memory: [
      {
        target: 'service',
        streams: 1_000,
        idleBytes: 2e8,
        openBytes: 3.024e8,
        perStreamBytes: 102_400,
        errors: 0,
      },
    ],
    profiles: [],
  };

  test('figures are medians over rounds, CPU that of the process under test', () => {
    expect(figuresOf(cell('many', round(200, 10), round(400, 12), round(100, 90)))).toEqual({
      perSecond: 100,
      p50: 12,
      p99: 24,
      cpuMs: 1,
      postgresCpuMs: 0.5,
      standInCpuMs: 0.25,
      spread: 1.5,
      errors: 0,
    });
    expect(figuresOf(cell('direct', round(2_000, 1))).cpuMs).toBe(0.025);
  });

  test('is Markdown with what a reader must know to judge it', () => {
    const text = render(results);
    expect(text).toContain('2026-01-31, 2 × Some CPU');
    expect(text).toContain('fsync on');
    expect(text).toContain(
      '| `converse` | 16 | stand-in, directly | 1,000 | 1.50 | 3.00 |  |  | 0.03 |  | 20 % |',
    );
    expect(text).toContain(
      '| `converse` | 16 | service, 1,000 merchants | 100 | 12.0 | 24.0 | 10.5 | 21.0 | 1.00 | 0.50 | 150 % |',
    );
    expect(text).toContain('`converse` 1,000 per second');
    expect(text).toContain('| service | 1,000 | 191 MB | 288 MB | 100 KB |');
    expect(text).toContain('| nobody | 10.0 | 20.0 | 1.00 | 1.00 | – | – |');
    expect(text).toContain('| 50 calls/s | 15.0 | 30.0 | 1.50 | 1.50 | 200 | 100 |');
    expect(errorsOf(results)).toEqual([]);
  });

  test('an error of any round is told', () => {
    const cells = [cell('many', round(200, 10), round(200, 10, 3))];
    // A flood may be refused; who calls once a second may not.
    const refused = { ...beside('fifty-times', 15, 3), rounds: [{ others: tally(15, 90, 10) }] };
    expect(errorsOf({ cells, neighbours: [beside('fifty-times', 15, 3), refused], memory: [] })).toEqual([
      'converse, 16 in flight, many: 3 errors, first: status 503',
      'neighbours beside fifty-times, others: 10 errors, first: refused',
    ]);
    expect(render({ ...results, cells })).toContain('1,000 merchants (3 errors)');
  });

  test('numbers have three digits that mean something', () => {
    expect([0.1234, 12.34, 1_234.5, -0.5, Number.NaN].map(number)).toEqual([
      '0.12',
      '12.3',
      '1235',
      '-0.50',
      '–',
    ]);
    expect(markdownTable(['a', 'b'], [['x', '1']], 1)).toBe('| a | b |\n| --- | --: |\n| x | 1 |');
  });
});
