import { connect } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { mintToken } from '../../src/auth/token.ts';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, onboard, operatorOf, Person, runtimeCalls } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const WIRE = `/model/${MODEL}/converse`;
const unknown = () => mintToken('merchant', 'test').text;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('who fails to authenticate', () => {
  test('is told to stop, in the words of each route; who is known goes on; X-Forwarded-For counts from a trusted proxy only', async () => {
    await using service = await startTestService({ AUTH_FAILURES_PER_ADDRESS_MAX: '3' });
    const merchant = await onboard(service, 'merchant-a');
    expect((await merchant.get('/usage')).status).toBe(200);
    const stranger = (at: string, headers: Record<string, string> = {}) =>
      new Person(service.url, unknown()).get(merchant.prefix + at, headers);
    const answers: Answer[] = [];
    // A header that anyone can send makes nobody another address.
    for (let n = 0; n < 10; n += 1)
      answers.push(await stranger('/usage', { 'x-forwarded-for': `198.51.100.${String(n)}` }));
    expect(answers.map(({ status }) => status)).toEqual([
      ...Array<number>(3).fill(401),
      ...Array<number>(7).fill(429),
    ]);
    const last = answers.at(-1);
    expect(last?.json['code']).toBe('auth.too_many_failures');
    expect(Number(last?.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(last?.headers.get('www-authenticate')).toBeNull();
    const wire = await new Person(service.url, unknown()).post(merchant.prefix + WIRE, converseBody('x'));
    expect([wire.status, wire.headers.get('x-amzn-errortype')]).toEqual([429, 'ThrottlingException']);
    expect((await new Person(service.url, 'garbage').get('/api/ops/merchants')).status).toBe(429);
    expect((await new Person(service.url).get('/api/ops/merchants')).status).toBe(401);
    expect((await merchant.get('/usage')).status).toBe(200);
    expect((await merchant.post(WIRE, converseBody('x'))).status).toBe(200);
    expect((await operatorOf(service).get('/api/ops/merchants')).status).toBe(200);
  });

  test('behind a trusted proxy is its own address', async () => {
    await using service = await startTestService({
      AUTH_FAILURES_PER_ADDRESS_MAX: '2',
      TRUSTED_PROXIES: '127.0.0.0/8, ::1',
    });
    const ask = async (forwarded: string) =>
      (await new Person(service.url, unknown()).get('/api/ops/merchants', { 'x-forwarded-for': forwarded }))
        .status;
    const statuses: number[] = [];
    for (const from of ['203.0.113.1', '203.0.113.1', '203.0.113.1', '203.0.113.2', '6.6.6.6, 203.0.113.1'])
      statuses.push(await ask(from));
    expect(statuses).toEqual([401, 401, 429, 401, 429]);
    expect([await ask('2001:db8::1'), await ask('2001:db8::2'), await ask('2001:db8:0:0:ffff::3')]).toEqual([
      401, 401, 429,
    ]);
  });
});

describe('one merchant at fifty times its share', () => {
  const RATIO_MAX = 2.5;

  /** Of some calls one after the other, in milliseconds. */
  async function timesOf(person: MerchantPerson, calls: number): Promise<number[]> {
    const times: number[] = [];
    for (let n = 0; n < calls; n += 1) {
      const startedAt = performance.now();
      const answer = await person.post(WIRE, converseBody('x'));
      times.push(performance.now() - startedAt);
      expect(answer.status).toBe(200);
    }
    return times;
  }
  const at = (part: number, times: number[]) =>
    [...times].sort((a, b) => a - b)[Math.ceil(times.length * part) - 1] ?? 0;

  test('leaves the others their calls, as fast as before', async () => {
    const settings = {
      CALLS_IN_FLIGHT_MAX: '4',
      UPSTREAM_SOCKETS_MAX: '4',
      CALLS_WAITING_MAX: '20',
      CALLS_WAIT_MS: '2000',
    };
    await using service = await startTestService(settings);
    const [flood, ...others] = await Promise.all(
      ['flood', 'other-1', 'other-2'].map((id) => onboard(service, id, { awsKey: AWS.merchantB })),
    );
    if (flood === undefined) throw new Error('nobody was onboarded');
    service.standIn.fault({ service: 'bedrock-runtime', delayMs: 100, times: 'always' });
    const measure = async () => (await Promise.all(others.map((person) => timesOf(person, 8)))).flat();
    await Promise.all(others.map((person) => timesOf(person, 1)));
    const refused = new Map<string, number>();
    const told: number[] = [];
    /** Without the flood, then beside it. */
    const compare = async () => {
      const before = await measure();
      let flooding = true;
      const callers = Array.from({ length: 100 }, async () => {
        while (flooding) {
          const { status, headers } = await flood.post(WIRE, converseBody('x'));
          refused.set(String(status), (refused.get(String(status)) ?? 0) + 1);
          if (status === 200) continue;
          told.push(Number(headers.get('retry-after')));
          await pause((told.at(-1) ?? 1) * 1_000);
        }
      });
      await until('it is refused', () => refused.has('429'));
      await pause(400);
      const during = await measure().finally(() => {
        flooding = false;
      });
      await Promise.all(callers);
      return [0.5, 0.99].map((part) => ({
        before: at(part, before),
        ratio: at(part, during) / at(part, before),
      }));
    };
    // Again, when another test took the machine in the middle of it.
    let [median, p99] = await compare();
    for (let more = 0; more < 2 && (median?.ratio ?? 0) >= RATIO_MAX; more += 1)
      [median, p99] = await compare();
    process.stdout.write(
      `the others: median ${String(median?.before.toFixed(0))} ms, then ${String(median?.ratio.toFixed(2))} times that; p99 ${String(p99?.before.toFixed(0))} ms, ` +
        `then ${String(p99?.ratio.toFixed(2))} times; the flood was answered ${JSON.stringify(Object.fromEntries(refused))}\n`,
    );
    expect([...refused.keys()].sort()).toEqual(['200', '429']);
    expect(refused.get('429')).toBeGreaterThan(40);
    expect(Math.min(...told)).toBeGreaterThanOrEqual(1);
    expect(refused.get('200')).toBeGreaterThan(5);
    // Of the median, because everything here shares two cores with other tests; without turns it is twenty times, or no answer at all.
    expect(median?.ratio).toBeLessThan(RATIO_MAX);
    expect(runtimeCalls(service).length).toBeGreaterThan(30);
    expect(service.service.services.gateway.inFlight.size).toBe(0);
  }, 120_000);
});

test('large bodies of one merchant leave room for those of others', async () => {
  await using service = await startTestService({
    IN_FLIGHT_BODY_BYTES_MAX: '4000000',
    WIRE_BODY_BYTES_MAX: '1000000',
  });
  const [large, small] = [
    await onboard(service, 'large'),
    await onboard(service, 'small', { awsKey: AWS.merchantB }),
  ];
  // Uploads that do not end: their memory is reserved when they begin.
  const { hostname, port } = new URL(service.url);
  const head = (person: MerchantPerson) =>
    `POST ${person.prefix}${WIRE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${person.token ?? ''}\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n{`;
  const sockets = [connect(Number(port), hostname), connect(Number(port), hostname)];
  try {
    const [first, second] = sockets;
    first?.write(head(large));
    await until('memory is reserved', () => service.service.services.bodyBudget.inUse >= 900_000);
    const answer = new Promise<string>((resolve) => second?.setEncoding('latin1').once('data', resolve));
    second?.write(head(large));
    const text = await answer;
    expect(text).toMatch(/^HTTP\/1\.1 429 /);
    expect(text).toMatch(/retry-after: \d/i);
    expect(text).toMatch(/x-amzn-errortype: ThrottlingException/i);
    expect((await small.post(WIRE, converseBody('x'.repeat(500_000)))).status).toBe(200);
    expect((await large.get('/usage')).status).toBe(200);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
  await until('memory is free', () => service.service.services.bodyBudget.inUse === 0);
});
