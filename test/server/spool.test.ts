import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import pg from 'pg';
import { ServiceError } from '../../src/domain/errors.ts';
import type { MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import { NO_TOKENS } from '../../src/domain/usage.ts';
import type { CallIntent } from '../../src/ledger/call-intent.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { Ledger } from '../../src/ledger/ledger.ts';
import type { OpenCall } from '../../src/ledger/ledger.ts';
import { LocalSpoolDisk } from '../../src/ledger/spool-disk.ts';
import { Spool } from '../../src/ledger/spool.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';
import { converseBody, MerchantPerson, onboard, Person, runtimeCalls } from '../support/people.ts';
import { createDatabase, onServer, startEmbeddedPostgres } from '../support/postgres.ts';
import type { EmbeddedCluster, TestDatabase } from '../support/postgres.ts';
import { startServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const CALLS = 12;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'spool-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const spoolFiles = () =>
  existsSync(directory) ? readdirSync(directory).filter((name) => /\.(open|jsonl)$/.test(name)) : [];
/** All lines; read again where a file got another name between listing and reading. */
function spooled(): string {
  for (;;) {
    try {
      return spoolFiles()
        .map((name) => readFileSync(path.join(directory, name), 'utf8'))
        .join('');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}
/** Calls with a line. One that was written while its file was taken for a replay has two. */
const spooledCalls = () =>
  new Set(
    spooled()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as { entry: { id: string } }).entry.id),
  );

/** As twenty seconds without a sign of life would. */
function letDie(): void {
  const before = new Date(Date.now() - 60_000);
  for (const name of readdirSync(directory).filter((name) => name.endsWith('.alive')))
    utimesSync(path.join(directory, name), before, before);
}

/** The same merchant's backend, calling another process. */
function atProcess(
  url: string,
  { merchantId, token = '', credentialId, apiKeyId }: MerchantPerson,
): MerchantPerson {
  return new MerchantPerson(url, { merchantId, token, credentialId, apiKeyId });
}

/** From now on Bedrock takes calls and answers them when the function that this returns is called, however long that takes. */
function holdAnswers({ standIn }: TestService, times: number | 'always' = 'always'): () => void {
  let answer: () => void = () => undefined;
  const after = new Promise<void>((resolve) => (answer = resolve));
  standIn.fault({ service: 'bedrock-runtime', times, after });
  return answer;
}

/** Whether nothing listens there any more. */
async function isClosed(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  try {
    await once(socket, 'connect');
    return false;
  } catch {
    return true;
  } finally {
    socket.destroy();
  }
}

describe('Postgres goes away and comes back', () => {
  let cluster: EmbeddedCluster;
  let database: TestDatabase;
  beforeAll(async () => {
    cluster = await startEmbeddedPostgres();
    database = await createDatabase(cluster.adminUrl, 'spool');
  });
  afterAll(async () => {
    await cluster.stop();
  });

  afterEach(async () => {
    // Where a test failed while it was away, the next one has it again.
    await query('SELECT 1').catch(() => cluster.up());
  });

  interface Row {
    state: string;
    aws_request_id: string;
    input_tokens: string;
    output_tokens: string;
  }
  const query = <T extends pg.QueryResultRow>(sql: string, values: unknown[] = []) =>
    onServer(database.adminUrl, async (client) => (await client.query<T>(sql, values)).rows);
  const rowsOf = (merchantId: string) =>
    query<Row>(
      'SELECT state, aws_request_id, input_tokens, output_tokens FROM calls WHERE merchant_id = $1 ORDER BY id',
      [merchantId],
    );
  const differencesOf = (merchantId: string) =>
    onServer(database.adminUrl, async (client) => {
      await client.query(`SELECT set_config('app.merchant_id', $1, false)`, [merchantId]);
      return (await client.query('SELECT * FROM ledger_differences()')).rows;
    });

  /** What every process does each ten seconds, once the deadlines of what is held have passed. */
  async function sweep(): Promise<void> {
    await query(`UPDATE calls SET deadline = now() - interval '1 second' WHERE state = 'held'`);
    await query('SELECT ledger_sweep(1000)');
  }

  /** Each row has the usage that AWS would bill for that very call. */
  async function expectSettledAsBilled(service: TestService, merchantId: string): Promise<void> {
    const rows = await rowsOf(merchantId);
    const billed = runtimeCalls(service)
      .filter((entry) => entry.executed)
      .map((entry) => [entry.requestId, entry.usage?.input, entry.usage?.output]);
    expect(billed.length).toBe(CALLS);
    expect(rows.every((row) => row.state === 'settled')).toBe(true);
    expect(
      rows.map((row) => [row.aws_request_id, Number(row.input_tokens), Number(row.output_tokens)]).sort(),
    ).toEqual(billed.sort());
    expect(await differencesOf(merchantId)).toEqual([]);
  }

  function startCalls(person: MerchantPerson): Promise<number>[] {
    return Array.from({ length: CALLS }, async (_, index) => {
      const operation = index % 2 === 0 ? 'converse' : 'converse-stream';
      const answer = await person.post(
        `/model/${MODEL}/${operation}`,
        converseBody(`call ${String(index)} STAND_IN_WORDS=${String(5 + index)}`),
      );
      return answer.status;
    });
  }

  test('running calls finish and are kept; new ones are refused; all is settled once it is back', async () => {
    await using service = await startTestService({ SPOOL_DIRECTORY: directory }, database);
    const merchant = await onboard(service, 'outage');
    const anyone = new Person(service.url);
    expect((await anyone.get('/readyz')).status).toBe(200);
    service.standIn.forget();
    const answer = holdAnswers(service);
    const calls = startCalls(merchant);
    await until('all calls are at AWS', () => runtimeCalls(service).length === CALLS);
    await cluster.down();
    answer();
    expect(await Promise.all(calls)).toEqual(calls.map(() => 200));
    expect(spooledCalls().size).toBe(CALLS);
    const refused = await merchant.post('/chat', { modelId: MODEL, prompt: 'now' });
    expect(refused.status).toBe(503);
    expect(refused.json['code']).toBe('ledger.unavailable');
    expect(refused.headers.get('retry-after')).toBe('5');
    await until('readiness fails', async () => (await anyone.get('/readyz')).status === 503);
    // Nothing of anybody's words or keys is on the disk.
    expect(spooled()).not.toMatch(/STAND_IN|AKIA|mbk_|Bearer/);
    await cluster.up();
    await until('all is settled', async () =>
      (await rowsOf('outage')).every(({ state }) => state === 'settled'),
    );
    await until('the spool is empty', () => spoolFiles().length === 0);
    await expectSettledAsBilled(service, 'outage');
    expect((await merchant.post('/chat', { modelId: MODEL, prompt: 'now' })).status).toBe(200);
  }, 90_000);

  test('a process that is killed meanwhile leaves its file to another, which settles even what became unknown', async () => {
    await using service = await startTestService({}, database);
    const merchant = await onboard(service, 'killed');
    const env = { ...service.env, SPOOL_DIRECTORY: directory, LOG_LEVEL: 'silent' };
    await using victim = await startServiceProcess(env);
    const person = atProcess(victim.url, merchant);
    service.standIn.forget();
    const answer = holdAnswers(service);
    const calls = startCalls(person);
    await until('all calls are at AWS', () => runtimeCalls(service).length === CALLS);
    await cluster.down();
    answer();
    expect(await Promise.all(calls)).toEqual(calls.map(() => 200));
    // An answer that is out is on the disk.
    expect(spooledCalls().size).toBe(CALLS);
    await victim.end('SIGKILL');
    await cluster.up();
    expect((await rowsOf('killed')).map(({ state }) => state)).not.toContain('settled');
    await sweep();
    expect((await rowsOf('killed')).every(({ state }) => state === 'unknown')).toBe(true);

    letDie();
    await using heir = await startServiceProcess(env);
    await until('all is settled', async () =>
      (await rowsOf('killed')).every(({ state }) => state === 'settled'),
    );
    await until('the spool is empty', () => spoolFiles().length === 0);
    await expectSettledAsBilled(service, 'killed');
    expect(await heir.end('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(readdirSync(directory)).toEqual([]);
  }, 90_000);

  test('a process that is killed between answers loses none that is out, and the rest is in doubt', async () => {
    await using service = await startTestService({}, database);
    const merchant = await onboard(service, 'between');
    const env = { ...service.env, SPOOL_DIRECTORY: directory, LOG_LEVEL: 'silent' };
    await using victim = await startServiceProcess(env);
    const person = atProcess(victim.url, merchant);
    service.standIn.forget();
    // Half of them are answered at one time, and the process is killed among these answers; the others never are.
    const answerHalf = holdAnswers(service, CALLS / 2);
    holdAnswers(service);
    const answered: string[] = [];
    const calls = Array.from({ length: CALLS }, async () => {
      const answer = await person.raw('POST', `/model/${MODEL}/converse`, converseBody('x'));
      await answer.arrayBuffer();
      if (answer.status === 200) answered.push(answer.headers.get('x-bedrock-call-id') ?? '');
    });
    const ended = Promise.allSettled(calls);
    await until('all calls are at AWS', () => runtimeCalls(service).length === CALLS);
    await cluster.down();
    answerHalf();
    await until('three are answered', () => answered.length >= 3);
    await victim.end('SIGKILL');
    await ended;
    await cluster.up();
    letDie();
    // The one that takes over is killed in its turn, as soon as it has begun.
    const first = await startServiceProcess(env);
    await until('one is settled', async () =>
      (await rowsOf('between')).some(({ state }) => state === 'settled'),
    );
    await first.end('SIGKILL');
    letDie();
    await using heir = await startServiceProcess(env);
    await until('the spool is empty', () => spoolFiles().length === 0);
    await sweep();
    const rows = await query<{ id: string; state: string; aws_request_id: string | null }>(
      `SELECT id, state, aws_request_id FROM calls WHERE merchant_id = 'between'`,
    );
    const settled = rows.filter(({ state }) => state === 'settled');
    expect(rows).toHaveLength(CALLS);
    expect(rows.filter(({ state }) => state === 'unknown')).toHaveLength(CALLS - settled.length);
    expect(settled.map(({ id }) => id)).toEqual(expect.arrayContaining(answered));
    expect(settled.length).toBeLessThan(CALLS);
    expect(new Set(settled.map((row) => row.aws_request_id)).size).toBe(settled.length);
    const events = await query<{ n: number }>(
      `SELECT count(*)::int AS n FROM audit_events WHERE merchant_id = 'between' AND action = 'call.settled'`,
    );
    expect(events).toEqual([{ n: settled.length }]);
    expect(await differencesOf('between')).toEqual([]);
    await heir.end('SIGKILL');
  }, 90_000);

  test('a call with an Idempotency-Key is made and paid once; its answer is not kept, and that is said', async () => {
    await using service = await startTestService({ SPOOL_DIRECTORY: directory }, database);
    const merchant = await onboard(service, 'keyed');
    service.standIn.forget();
    const answer = holdAnswers(service);
    const ask = async (stream: boolean) => {
      const body = { modelId: MODEL, prompt: 'x', stream };
      const told = await merchant.raw('POST', '/chat', body, { 'idempotency-key': `k-${String(stream)}` });
      return { status: told.status, retry: told.headers.get('retry-after'), text: await told.text() };
    };
    const first = [ask(false), ask(true)];
    await until('all calls are at AWS', () => runtimeCalls(service).length === 2);
    await cluster.down();
    answer();
    expect((await Promise.all(first)).map(({ status }) => status)).toEqual([200, 200]);
    expect(await ask(false)).toMatchObject({ status: 503, retry: '5' });
    await cluster.up();
    await until('all is settled', async () =>
      (await rowsOf('keyed')).every(({ state }) => state === 'settled'),
    );
    for (const again of [await ask(false), await ask(true)]) {
      expect(again.status).toBe(409);
      expect(JSON.parse(again.text)).toMatchObject({ code: 'idempotency.done_before', outcome: 'settled' });
    }
    expect(runtimeCalls(service)).toHaveLength(2);
    expect(await rowsOf('keyed')).toHaveLength(2);
  }, 90_000);

  test('a process that leaves while it is away leaves its file in order', async () => {
    await using service = await startTestService({}, database);
    const merchant = await onboard(service, 'leaving');
    const env = {
      ...service.env,
      SPOOL_DIRECTORY: directory,
      LOG_LEVEL: 'silent',
      SHUTDOWN_GRACE_MS: '60000',
    };
    await using leaving = await startServiceProcess(env);
    const person = atProcess(leaving.url, merchant);
    service.standIn.forget();
    const answer = holdAnswers(service);
    const calls = startCalls(person);
    await until('all calls are at AWS', () => runtimeCalls(service).length === CALLS);
    await cluster.down();
    const ended = leaving.end('SIGTERM');
    await until('its port is closed', () => isClosed(leaving.url));
    answer();
    expect(await Promise.all(calls)).toEqual(calls.map(() => 200));
    expect(await ended).toEqual({ code: 0, signal: null });
    expect(readdirSync(directory).filter((name) => name.endsWith('.alive'))).toEqual([]);
    expect(spooledCalls().size).toBe(CALLS);
    await cluster.up();
    await using heir = await startServiceProcess(env);
    await until('the spool is empty', () => spoolFiles().length === 0);
    await expectSettledAsBilled(service, 'leaving');
    await heir.end('SIGKILL');
  }, 90_000);

  test('no new call begins while the spool is full, and readiness says so', async () => {
    await using service = await startTestService(
      { SPOOL_DIRECTORY: directory, SPOOL_BYTES_MAX: '65536' },
      database,
    );
    const merchant = await onboard(service, 'full');
    service.standIn.forget();
    // The disk goes: no sign of life can be written.
    rmSync(directory, { recursive: true });
    const anyone = new Person(service.url);
    await until('readiness fails', async () => (await anyone.get('/readyz')).status === 503);
    const refused = await merchant.post('/chat', { modelId: MODEL, prompt: 'now' });
    expect(refused.status).toBe(503);
    expect(refused.json['code']).toBe('service.overloaded');
    expect(refused.headers.get('retry-after')).toBe('5');
    expect(runtimeCalls(service)).toEqual([]);
  }, 60_000);
});

describe('whatever the sequence of outages', () => {
  let database: TestDatabase & AsyncDisposable;
  let connection: Database;
  let admin: pg.Client;
  let merchants = 0;
  beforeAll(async () => {
    database = await newTestDatabase();
    admin = new pg.Client({ connectionString: database.adminUrl });
    await admin.connect();
    connection = new Database({
      url: new Secret(database.url),
      connectionsMax: 4,
      statementTimeoutMs: 5_000,
      onPoolError: () => undefined,
    });
  });
  afterAll(async () => {
    await connection[Symbol.asyncDispose]();
    await admin.end();
    await database[Symbol.asyncDispose]();
  });

  const INTENT = {
    operation: 'converse',
    modelId: 'm',
    region: 'us-east-1',
    source: 'service-default',
    subject: 'x',
    requestId: 'r',
    deadlineSeconds: 600,
    merchantRevision: 1,
    bound: { inputTokens: 0, outputTokens: 0, outputTokensMost: 0, clampable: false, tier: 'standard' },
  } as CallIntent;

  /** A process: its ledger, its spool, and whether Postgres answers it. `lost`: it commits, and the answer does not come. */
  class Process {
    postgres: 'there' | 'away' | 'lost' = 'there';
    readonly store = new LedgerStore(connection, { processId: randomUUID() });
    readonly spool: Spool;
    readonly ledger: Ledger;

    constructor() {
      const flaky: Pick<LedgerStore, 'hold' | 'settle'> = {
        hold: (...args) => this.store.hold(...args),
        settle: async (...args) => {
          if (this.postgres === 'away') throw new ServiceError('ledger.unavailable', 'away');
          const moved = await this.store.settle(...args);
          if (this.postgres === 'lost') throw new ServiceError('ledger.unavailable', 'lost');
          return moved;
        },
      };
      this.spool = new Spool({
        disk: new LocalSpoolDisk(directory),
        processId: randomUUID(),
        bytesMax: 1_000_000,
        settle: ({ merchantId, id, outcome }) => flaky.settle(merchantId, id, outcome),
        onProblem: () => undefined,
        onReplayed: () => undefined,
      });
      this.ledger = new Ledger(flaky as LedgerStore, {
        settleRetryDelaysMs: [],
        onUnsettled: () => undefined,
        spool: this.spool,
      });
    }

    async open(): Promise<this> {
      await this.spool.open();
      return this;
    }
  }

  const step = fc.oneof(
    fc.constantFrom<'call' | 'settle' | 'tick' | 'die' | 'tear' | 'sweep'>(
      'call',
      'settle',
      'settle',
      'tick',
      'die',
      'tear',
      'sweep',
    ),
    fc.constantFrom<'there' | 'away' | 'lost'>('there', 'away', 'lost'),
  );

  test('each call is settled once, with its own usage', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        merchants += 1;
        const merchantId = `merchant-${String(merchants)}` as MerchantId;
        await admin.query(`
          INSERT INTO merchants (id, name, service_defaults_allowed) VALUES ('${merchantId}', 'x', true);
          SELECT audit_append('${merchantId}', 'x', 'merchant.created', 'x', 'allowed', 'x', '{}');`);
        let process = await new Process().open();
        const running: OpenCall[] = [];
        const ended = new Map<string, number>();
        let tokens = 0;
        for (const what of steps) {
          switch (what) {
            case 'call':
              running.push(await process.ledger.open(merchantId, INTENT));
              break;
            case 'settle': {
              const call = running.shift();
              if (call === undefined) break;
              tokens += 1;
              ended.set(call.id, tokens);
              await call.resolve({
                state: 'settled',
                usage: { tokens: { ...NO_TOKENS, input: tokens }, provenance: 'body' },
                upstream: {},
              });
              break;
            }
            case 'tick':
              await process.spool.tick().catch(() => undefined);
              break;
            case 'die':
              // What ran in it is lost; what it had written is not.
              running.length = 0;
              letDie();
              process = await new Process().open();
              break;
            case 'tear': {
              // A crash in the middle of an append: half a line of a call that never was resolved.
              const open = spoolFiles().find((name) => name.endsWith('.open'));
              if (open === undefined) break;
              const file = path.join(directory, open);
              const before = readFileSync(file);
              running.length = 0;
              letDie();
              const torn = Buffer.concat([before, before.subarray(0, 50)]);
              writeFileSync(file, torn);
              process = await new Process().open();
              break;
            }
            case 'sweep':
              await admin.query(
                `UPDATE calls SET deadline = now() - interval '1 second' WHERE merchant_id = $1 AND state = 'held'`,
                [merchantId],
              );
              await process.store.sweep(1_000);
              break;
            default:
              process.postgres = what;
          }
        }
        process.postgres = 'there';
        await process.spool.tick();
        await process.spool.tick();
        const { rows } = await admin.query<{ id: string; state: string; input_tokens: string }>(
          'SELECT id, state, input_tokens FROM calls WHERE merchant_id = $1',
          [merchantId],
        );
        for (const row of rows) {
          const used = ended.get(row.id);
          expect([row.state === 'settled', Number(row.input_tokens)]).toEqual([
            used !== undefined,
            used ?? 0,
          ]);
        }
        expect(spoolFiles()).toEqual([]);
        await admin.query(`SELECT set_config('app.merchant_id', $1, false)`, [merchantId]);
        expect((await admin.query('SELECT * FROM ledger_differences()')).rows).toEqual([]);
        const { rows: settledEvents } = await admin.query<{ n: string }>(
          `SELECT count(*) AS n FROM audit_events WHERE merchant_id = $1 AND action = 'call.settled'`,
          [merchantId],
        );
        expect(Number(settledEvents[0]?.n)).toBe(ended.size);
        await process.spool[Symbol.asyncDispose]();
      }),
      { numRuns: 40 },
    );
  }, 120_000);
});
