import { randomInt } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { newTestDatabase } from '../support/database.ts';
import { converseBody, MerchantPerson, onboard, Person, runtimeCalls } from '../support/people.ts';
import { createDatabase, onServer, startEmbeddedPostgres } from '../support/postgres.ts';
import { startServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import { Chance } from './chance.ts';
import { House } from './house.ts';
import { duplicatesIn, planRounds, run } from './run.ts';
import type { RunOrder, RunResult } from './run.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
/** The long version, `npm run test:crash`, repeats these by the hundred; there a seed repeats what failed here. */
const SEED = randomInt(1_000_000);

function order(rounds: number, postgresRounds: number, only: readonly string[]): RunOrder {
  return { seed: SEED, rounds, postgresRounds, only, stopped: AbortSignal.timeout(100_000) };
}

function expectWhole(result: RunResult, rounds: number): void {
  expect({ seed: SEED, faults: result.faults }).toEqual({ seed: SEED, faults: [] });
  expect(result.results).toHaveLength(rounds);
  // Something was at stake: calls ran, and some died without an outcome.
  expect(result.witnesses.filter(({ executed }) => executed).length).toBeGreaterThan(rounds * 2);
  expect(result.results.reduce((sum, { unknown }) => sum + unknown, 0)).toBeGreaterThan(0);
  expect(duplicatesIn(result.witnesses)).toBe(0);
}

/** The first round of each of these points in a run of this seed. */
function firstOf(points: readonly string[], rounds: number, postgresRounds: number): string[] {
  const planned = planRounds(order(rounds, postgresRounds, []));
  return points.map((name) => String(planned.find(({ point }) => point.name === name)?.number));
}

test('kill -9 of the service while calls are on their way, begin or settle: nothing lost, nothing counted twice, every doubt resolved', async () => {
  await using database = await newTestDatabase();
  await using house = await House.open({ database });
  const chance = new Chance(SEED);
  const points = [
    chance.one(['held-request-lost', 'held-request-late']),
    chance.one(['settling-lost', 'settling-late', 'streaming', 'holding-lost', 'holding-late']),
  ];
  const result = await run(house, order(14, 0, firstOf(points, 14, 0)));
  expectWhole(result, points.length);
}, 120_000);

test('kill -9 of Postgres, and of the service while it tries to settle: what was committed is there', async () => {
  const cluster = await startEmbeddedPostgres();
  try {
    const database = await createDatabase(cluster.adminUrl, 'crash');
    await using house = await House.open({ database, cluster });
    const result = await run(house, order(0, 5, firstOf(['settlement-retries'], 0, 5)));
    expectWhole(result, 1);
  } finally {
    await cluster.stop();
  }
}, 120_000);

test('SIGTERM: readiness fails, running streams finish and settle, then the process ends by itself', async () => {
  await using service = await startTestService();
  const merchant = await onboard(service, 'leaving');
  await using leaving = await startServiceProcess({
    ...service.env,
    SHUTDOWN_DELAY_MS: '1500',
    SHUTDOWN_GRACE_MS: '60000',
  });
  const person = new MerchantPerson(leaving.url, {
    merchantId: merchant.merchantId,
    token: merchant.token ?? '',
    credentialId: merchant.credentialId,
    apiKeyId: merchant.apiKeyId,
  });
  for (let stream = 0; stream < 2; stream += 1)
    service.standIn.fault({ operation: 'ConverseStream', eventDelayMs: 30 });
  // Nobody waits for this one any more, and no connection: it is the longest, and its usage is read all the same.
  const caller = new AbortController();
  const left = fetch(`${leaving.url}/api/merchants/leaving/bedrock/model/${MODEL}/converse-stream`, {
    method: 'POST',
    headers: { authorization: `Bearer ${merchant.token ?? ''}`, 'content-type': 'application/json' },
    body: JSON.stringify(converseBody('STAND_IN_WORDS=160')),
    signal: caller.signal,
  }).then((answer) => answer.text());
  while (runtimeCalls(service).length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const running = person.post(`/model/${MODEL}/converse-stream`, converseBody('STAND_IN_WORDS=100'), {
    accept: 'text/event-stream',
  });
  while (runtimeCalls(service).length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  const ended = leaving.end('SIGTERM');
  caller.abort();
  await expect(left).rejects.toThrow();
  while ((await new Person(leaving.url).get('/readyz')).status === 200)
    await new Promise((resolve) => setTimeout(resolve, 5));
  // Until load balancers have noticed, calls are still taken.
  expect((await person.post('/chat', { modelId: MODEL, prompt: 'in time' })).status).toBe(200);
  const answer = await running;
  expect(answer.text).toContain('event: metadata');
  expect(await ended).toEqual({ code: 0, signal: null });
  const { rows } = await onServer(service.database.adminUrl, (client) =>
    client.query<{ state: string }>('SELECT state FROM calls WHERE merchant_id = $1', ['leaving']),
  );
  expect(rows).toEqual(Array.from({ length: 3 }, () => ({ state: 'settled' })));
});
