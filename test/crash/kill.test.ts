import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import { converseBody, onboard, Person, runtimeCalls } from '../support/people.ts';
import { MerchantPerson } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const OPERATIONS = ['converse', 'converse-stream', 'invoke', 'invoke-with-response-stream'] as const;
const CALLS = 50;

let service: TestService;
let admin: pg.Client;

beforeAll(async () => {
  service = await startTestService();
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
});

interface Row {
  id: string;
  state: string;
  aws_request_id: string | null;
  request_id: string;
  model_id: string;
}

/** Makes the deadline of what the dead process held pass, as ten minutes would, and lets a living replica find it. */
async function passDeadlines(): Promise<void> {
  await admin.query(`UPDATE calls SET deadline = now() - interval '1 second' WHERE state = 'held'`);
}

test.each([0, 1, 2])(
  `kill -9 in the middle of ${String(CALLS)} mixed calls, round %s: nothing lost, nothing settled twice`,
  async (round) => {
    service.standIn.forget();
    const merchant = await onboard(service, `crash-${String(round)}`);
    await using victim = await startServiceProcess({ ...service.env, LOG_LEVEL: 'silent' });
    const facts = {
      merchantId: merchant.merchantId,
      token: merchant.token ?? '',
      credentialId: merchant.credentialId,
      apiKeyId: merchant.apiKeyId,
    };
    const person = new MerchantPerson(victim.url, facts);
    // Warm, so that the crash meets calls at every stage and not only the first opening of the credential.
    await person.post(`/model/${MODEL}/converse`, converseBody('warm'));
    service.standIn.fault({ service: 'bedrock-runtime', times: 'always', delayMs: 5, eventDelayMs: 3 });

    const calls = Array.from({ length: CALLS }, async (_, index) => {
      await new Promise((resolve) => setTimeout(resolve, index * 4));
      const operation = OPERATIONS[index % OPERATIONS.length] ?? 'converse';
      const body = operation.startsWith('converse')
        ? converseBody(`call ${String(index)} STAND_IN_WORDS=40`)
        : {
            anthropic_version: 'bedrock-2023-05-31',
            max_tokens: 200,
            messages: [{ role: 'user', content: `call ${String(index)} STAND_IN_WORDS=40` }],
          };
      return person.post(`/model/${MODEL}/${operation}`, body).then(
        (answer) => answer.status,
        () => 'cut',
      );
    });
    // Some calls are over, some stream, some wait for Postgres, some have not begun.
    const reached = 10 + round * 10;
    while (runtimeCalls(service).length < reached) await new Promise((resolve) => setTimeout(resolve, 5));
    await victim.end('SIGKILL');
    const outcomes = await Promise.all(calls);
    expect(outcomes).toContain('cut');

    await passDeadlines();
    const { LedgerStore } = await import('../../src/ledger/ledger-store.ts');
    const { Database } = await import('../../src/persistence/database.ts');
    const { Secret } = await import('../../src/domain/secret.ts');
    await using database = new Database({
      url: new Secret(service.database.url),
      connectionsMax: 2,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
    // Two replicas sweep at once: each row is resolved by one of them.
    const store = new LedgerStore(database, { processId: randomUUID(), lanes: 1 });
    await Promise.all([store.sweep(1_000), store.sweep(1_000)]);

    const { rows } = await admin.query<Row>(
      'SELECT id, state, aws_request_id, request_id, model_id FROM calls WHERE merchant_id = $1',
      [merchant.merchantId],
    );
    const journal = runtimeCalls(service).filter((entry) => entry.modelId === MODEL);
    expect(journal.length).toBeGreaterThan(5);
    // One row for each call that reached AWS, and none settled without one.
    expect(rows.length).toBeGreaterThanOrEqual(journal.length);
    const settled = rows.filter((row) => row.state === 'settled');
    expect(new Set(settled.map((row) => row.aws_request_id)).size).toBe(settled.length);
    const seen = new Set(journal.map((entry) => entry.requestId));
    for (const row of settled) expect(seen).toContain(row.aws_request_id);
    expect(rows.every((row) => row.state === 'settled' || row.state === 'unknown')).toBe(true);
    // What was not settled is unknown, so that rows and journal agree: every call at AWS is one settled or one unknown row.
    const unknown = rows.length - settled.length;
    expect(settled.length + unknown).toBeGreaterThanOrEqual(journal.length);
    expect(unknown).toBeGreaterThan(0);

    // The day's sums are those of the rows.
    const { rows: sums } = await admin.query<{ settled: string; unknown: string }>(
      'SELECT sum(settled) AS settled, sum(unknown) AS unknown FROM usage_days WHERE merchant_id = $1',
      [merchant.merchantId],
    );
    expect(sums[0]).toEqual({ settled: String(settled.length), unknown: String(unknown) });
  },
);

test('SIGTERM: readiness fails, running streams finish and settle, then the process ends by itself', async () => {
  service.standIn.forget();
  const merchant = await onboard(service, 'leaving');
  await using leaving = await startServiceProcess({ ...service.env, SHUTDOWN_DELAY_MS: '400' });
  const person = new MerchantPerson(leaving.url, {
    merchantId: merchant.merchantId,
    token: merchant.token ?? '',
    credentialId: merchant.credentialId,
    apiKeyId: merchant.apiKeyId,
  });
  service.standIn.fault({ operation: 'ConverseStream', eventDelayMs: 30 });
  const running = person.post(`/model/${MODEL}/converse-stream`, converseBody('STAND_IN_WORDS=60'), {
    accept: 'text/event-stream',
  });
  while (runtimeCalls(service).length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const ended = leaving.end('SIGTERM');
  while ((await new Person(leaving.url).get('/readyz')).status === 200)
    await new Promise((resolve) => setTimeout(resolve, 5));
  // Until load balancers have noticed, calls are still taken.
  expect((await person.post('/chat', { modelId: MODEL, prompt: 'in time' })).status).toBe(200);
  const answer = await running;
  expect(answer.text).toContain('event: metadata');
  expect(await ended).toEqual({ code: 0, signal: null });
  const { rows } = await admin.query<Row>('SELECT state FROM calls WHERE merchant_id = $1', ['leaving']);
  expect(rows).toEqual([{ state: 'settled' }, { state: 'settled' }]);
});
