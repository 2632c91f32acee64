import { randomBytes } from 'node:crypto';
import type { FaultHandle, FaultRule } from '../aws/faults.ts';
import type { JournalEntry } from '../aws/journal.ts';
import { AWS } from '../support/aws-keys.ts';
import { newTestDatabase } from '../support/database.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import type { Road } from '../support/fault-proxy.ts';
import { findAround, find, secretsAt } from '../support/canary.ts';
import { directFields, onboard } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { onServer } from '../support/postgres.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { soon } from '../support/soon.ts';
import { eventually } from '../support/until.ts';
import type { Case, Dependency, How } from './expected.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const SIX_MINUTES_MS = 360_000;
/** Longer than anything here may take. */
const NO_ANSWER_MS = 20_000;

/**
 * One or two seconds stand for three to five of production. What is well is under the same limit as what is broken, KMS as Secrets Manager and
 * both as STS, and must not be taken for silent on a loaded machine.
 */
const SHORT = {
  Postgres: { DATABASE_TIMEOUT_MS: '2500' },
  KMS: { VAULT_TIMEOUT_MS: '2000' },
  'Secrets Manager': { VAULT_TIMEOUT_MS: '2000' },
  STS: { VAULT_TIMEOUT_MS: '2000' },
  Bedrock: { UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '2000' },
} as const satisfies Record<Dependency, Record<string, string>>;

const ENDPOINTS = {
  KMS: 'ENDPOINT_KMS',
  'Secrets Manager': 'ENDPOINT_SECRETS_MANAGER',
  STS: 'ENDPOINT_STS',
  Bedrock: 'ENDPOINT_BEDROCK_RUNTIME',
} as const;

/** Later than the limit above; Bedrock may take its time. Milliseconds. */
const SLOW_MS: Record<Dependency, number> = {
  Postgres: 4_500,
  KMS: 2_500,
  'Secrets Manager': 2_500,
  STS: 2_500,
  Bedrock: 300,
};

const AWS_FAULTS = {
  KMS: { service: 'kms' },
  'Secrets Manager': { service: 'secretsmanager' },
  STS: { service: 'sts' },
  Bedrock: { service: 'bedrock-runtime' },
} as const satisfies Record<string, FaultRule>;

/** What a test of a credential asks, and calls need not. */
const TESTED: ReadonlySet<Dependency> = new Set(['KMS', 'Secrets Manager', 'STS']);

/** What came of one request during a fault, and after it. */
export interface Observed {
  /** In the words of expected.ts. */
  answer: string;
  tookMs: number;
  /** The requests of Bedrock's that carried this one's words. */
  sent: readonly JournalEntry[];
  /** From the end of the fault to the first success. */
  recoveredMs: number;
  /** Credentials that were stored although the answer was an error. */
  stored: number;
  /** What the same request is answered during the same fault after somebody tested its credential; undefined where that was not tried. */
  afterTest: string | undefined;
}

interface Cell {
  name: Case;
  person: MerchantPerson;
  /** Of calls with a stored one. */
  credentialId?: string;
  /** The key that may sign, and no other. */
  keyId: string;
  send: (words: string) => Promise<Answer>;
  words: string;
}

/** The service with a road of its own to one thing it needs, and the people who use it. */
export class FaultHouse implements AsyncDisposable {
  readonly service: TestService;
  readonly #what: Dependency;
  readonly #proxy: FaultProxy;
  readonly #clock: { aheadMs: number };
  readonly #close: () => Promise<void>;
  #settled!: MerchantPerson;
  #fault: FaultHandle | undefined;
  readonly #tokens: string[] = [];
  /** What was said in prompts. */
  readonly #prompts = new Map<string, string>();
  readonly #answers: string[] = [];

  private constructor(
    what: Dependency,
    service: TestService,
    { proxy, clock, close }: { proxy: FaultProxy; clock: { aheadMs: number }; close: () => Promise<void> },
  ) {
    this.#what = what;
    this.service = service;
    this.#proxy = proxy;
    this.#clock = clock;
    this.#close = close;
  }

  static async start(what: Dependency): Promise<FaultHouse> {
    const database = await newTestDatabase();
    const proxy = await FaultProxy.start();
    const clock = { aheadMs: 0 };
    const url = new URL(database.url);
    url.port = String(proxy.port);
    proxy.leadTo(database.url);
    const road: Record<string, string> =
      what === 'Postgres' ? { DATABASE_URL: url.href } : { [ENDPOINTS[what]]: proxy.url };
    const service = await startTestService({ ...SHORT[what], ...road }, database, {
      clock: { now: () => Date.now() + clock.aheadMs },
    });
    if (what !== 'Postgres') proxy.leadTo(service.standIn.url);
    const close = async () => {
      await proxy.set({ kind: 'open' });
      await service[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    };
    const house = new FaultHouse(what, service, { proxy, clock, close });
    house.#settled = await house.#onboard('long-here');
    return house;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }

  /** Breaks the road, has every case meet it at one time, and mends it. */
  async observe(how: How): Promise<Record<Case, Observed>> {
    const cells = await this.#cells(how);
    await this.#break(how);
    const during = await Promise.all(
      cells.map(async (cell) => {
        const startedAt = performance.now();
        return {
          answer: await soon(cell.send(cell.words), NO_ANSWER_MS),
          tookMs: performance.now() - startedAt,
        };
      }),
    );
    const afterTests = await Promise.all(cells.map((cell) => this.#afterTest(cell)));
    await this.#mend();
    const mendedAt = performance.now();
    const after = await Promise.all(cells.map((cell) => recovery(cell, mendedAt)));
    const seen = await Promise.all(
      cells.map(async (cell, i): Promise<[Case, Observed]> => {
        const { answer, tookMs } = during[i] as { answer: Answer | undefined; tookMs: number };
        const sent = this.service.standIn.journal.filter(
          ({ service, bodyBase64 }) =>
            service === 'bedrock-runtime' &&
            Buffer.from(bodyBase64, 'base64').toString().includes(`"${cell.words} `),
        );
        const failedStore = cell.name === 'store' && answer?.status !== 201;
        const stored = failedStore ? await countStored(cell.person, cell.words) : 0;
        if (answer !== undefined) this.#answers.push(answer.text, ...answer.headers.values());
        if (cell.name !== 'store') this.#prompts.set(`prompt of ${how}, ${cell.name}`, cell.words);
        const told = answer === undefined ? 'no answer' : `${inWords(answer)}${await this.#inBooks(answer)}`;
        return [
          cell.name,
          { answer: told, tookMs, sent, recoveredMs: after[i] ?? Infinity, stored, afterTest: afterTests[i] },
        ];
      }),
    );
    return Object.fromEntries(seen) as Record<Case, Observed>;
  }

  /** Rows by state; those still held are put past their deadline and swept, as time would do it; or the service makes them void, which takes seconds. */
  async statesAfterDeadline(): Promise<Record<string, number>> {
    for (const end = Date.now() + NO_ANSWER_MS; ; await new Promise((resolve) => setTimeout(resolve, 250))) {
      const states = await this.#statesAfterSweep();
      if (states['held'] === undefined || Date.now() > end) return states;
    }
  }

  /** Secrets, in whatever form, wherever the service leaves something; and prompts, which answers alone may repeat. */
  async leaks(): Promise<string[]> {
    const secrets = secretsAt(this.service, this.#tokens);
    return [
      ...(await findAround(new Map([...secrets, ...this.#prompts]), this.service)),
      ...find(secrets, 'an answer', this.#answers.join('\n')),
    ];
  }

  async #onboard(id: string): Promise<MerchantPerson> {
    const person = await onboard(this.service, id);
    this.#tokens.push(person.token ?? '');
    return person;
  }

  /** Without what a call asks of them, tests ask KMS, Secrets Manager and STS anew. */
  async #afterTest({ person, credentialId, words, send }: Cell): Promise<string | undefined> {
    if (credentialId === undefined || !TESTED.has(this.#what)) return undefined;
    await soon(person.post(`/credentials/${credentialId}/test`, {}), NO_ANSWER_MS);
    const answer = await soon(send(`again ${words}`), NO_ANSWER_MS);
    return answer === undefined ? 'no answer' : `${inWords(answer)}${await this.#inBooks(answer)}`;
  }

  #statesAfterSweep(): Promise<Record<string, number>> {
    return onServer(this.service.database.adminUrl, async (client) => {
      await client.query(
        `UPDATE calls SET deadline = clock_timestamp() - interval '1 second' WHERE state = 'held'`,
      );
      await client.query('SELECT ledger_sweep(1000)');
      const { rows } = await client.query<{ state: string; count: number }>(
        'SELECT state, count(*)::int AS count FROM calls GROUP BY state',
      );
      return Object.fromEntries(rows.map(({ state, count }) => [state, count]));
    });
  }

  async #cells(how: How): Promise<Cell[]> {
    const stranger = await this.#onboard(`stranger-${how.replace(/\W/g, '-')}`);
    const settled = this.#settled;
    const other = await storeCredential(settled, `other ${how}`);
    // Opened, and then forgotten by all but the copy that is kept for bad days.
    await mustBe(200, () => chat(settled, 'warm up', { credentialId: other }));
    this.#clock.aheadMs += SIX_MINUTES_MS;
    await Promise.all([
      mustBe(200, () => chat(settled, 'warm up', { credentialId: settled.credentialId })),
      mustBe(200, () => chat(settled, 'warm up', directFields())),
    ]);
    const cell = (name: Case, person: MerchantPerson, send: (words: string) => Promise<Answer>): Cell => {
      const words = `cell-${randomBytes(8).toString('hex')}`;
      const keyId = (name.startsWith('direct') ? AWS.merchantADirect : AWS.merchantA).accessKeyId;
      return { name, person, keyId, words, send };
    };
    const by = (person: MerchantPerson, credential: object) => (words: string) =>
      chat(person, words, credential);
    const stored = (name: Case, person: MerchantPerson, credentialId: string): Cell => ({
      ...cell(name, person, by(person, { credentialId })),
      credentialId,
    });
    return [
      stored('stored, never opened', stranger, stranger.credentialId),
      stored('stored, open', settled, settled.credentialId),
      stored('stored, opened before', settled, other),
      cell('direct, new', stranger, by(stranger, directFields())),
      cell('direct, known', settled, by(settled, directFields())),
      cell('store', settled, (words) => settled.post('/credentials', newCredential(words))),
      cell('test', settled, () => settled.post(`/credentials/${settled.credentialId}/test`, {})),
    ];
  }

  async #break(how: How): Promise<void> {
    const delayMs = SLOW_MS[this.#what];
    const roads: Partial<Record<How, Road>> = {
      refused: { kind: 'refused' },
      'black hole': { kind: 'black hole' },
      slow: { kind: 'slow', delayMs },
      ...(this.#what === 'Postgres' && {
        throttled: { kind: 'postgres-error', sqlState: '53300' },
        '5xx': { kind: 'postgres-error', sqlState: '57P03' },
      }),
    };
    const road = roads[how];
    if (road !== undefined) await this.#proxy.set(road);
    else if (this.#what !== 'Postgres')
      this.#fault = this.service.standIn.fault({
        ...AWS_FAULTS[this.#what],
        ...saidByAws(how),
        times: 'always',
      });
  }

  async #mend(): Promise<void> {
    this.#fault?.remove();
    await this.#proxy.set({ kind: 'open' });
  }

  /** What the ledger and the audit trail have of a request. */
  async #inBooks(answer: Answer): Promise<string> {
    const requestId = answer.headers.get('x-request-id') ?? (answer.json['requestId'] as string);
    return onServer(this.service.database.adminUrl, async (client) => {
      const calls = await client.query<{ state: string }>('SELECT state FROM calls WHERE request_id = $1', [
        requestId,
      ]);
      const stale = await client.query(
        `SELECT 1 FROM audit_events WHERE request_id = $1 AND action = 'credential.used_stale'`,
        [requestId],
      );
      // Rows that a slow Postgres wrote after all: nothing was sent for them, and some seconds later they are void.
      const states = calls.rows
        .map(({ state }) => state)
        .filter((state) => this.#what !== 'Postgres' || !['held', 'void'].includes(state));
      const all = [...states, ...(stale.rows.length > 0 ? ['stale'] : [])].join(', ');
      if (all === '') return '';
      return answer.status === 200 ? ` ${all}` : `, ${all}`;
    });
  }
}

function saidByAws(how: How): FaultRule {
  return how === 'throttled'
    ? { status: 429, type: 'ThrottlingException', message: 'slow down' }
    : { status: 500, type: 'InternalServerException', message: 'broken' };
}

function inWords({ status, json, headers }: Answer): string {
  const code = typeof json['code'] === 'string' ? ` ${json['code']}` : '';
  const retryAfter = headers.get('retry-after');
  return `${String(status)}${code}${retryAfter === null ? '' : ` (${retryAfter} s)`}`;
}

async function recovery(cell: Cell, mendedAt: number): Promise<number> {
  for (;;) {
    const answer = await soon(cell.send(`after ${cell.words}`), NO_ANSWER_MS);
    const ms = performance.now() - mendedAt;
    if (answer !== undefined && answer.status < 300) return ms;
    if (ms > NO_ANSWER_MS) return Infinity;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

function chat(person: MerchantPerson, words: string, credential: object): Promise<Answer> {
  return person.post('/chat', { modelId: MODEL, prompt: `${words} please`, ...credential });
}

function newCredential(name: string) {
  const { accessKeyId, secretAccessKey } = AWS.merchantA;
  return {
    kind: 'access-key',
    name,
    region: 'us-east-1',
    awsAccessKeyId: accessKeyId,
    awsSecretAccessKey: secretAccessKey,
  };
}

async function storeCredential(person: MerchantPerson, name: string): Promise<string> {
  const answer = await mustBe(201, () => person.post('/credentials', newCredential(name)));
  return answer.json['id'] as string;
}

async function countStored(person: MerchantPerson, name: string): Promise<number> {
  const { json } = await person.get('/credentials');
  return (json['items'] as { name: string }[]).filter((credential) => credential.name === name).length;
}

/** What makes the cells ready is none of what is observed: it is sent again where the machine was too slow for the limits above. */
async function mustBe(status: number, send: () => Promise<Answer>): Promise<Answer> {
  const answer = await eventually(send, (one) => one.status === status || one.status < 500);
  if (answer.status === status) return answer;
  throw new Error(`was answered ${String(answer.status)}: ${answer.text}`);
}
