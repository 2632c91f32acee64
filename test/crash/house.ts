import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { AuditStore } from '../../src/audit/audit-store.ts';
import { Secret } from '../../src/domain/secret.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { AWS } from '../support/aws-keys.ts';
import type { EmbeddedCluster, TestDatabase } from '../support/postgres.ts';
import { startServiceProcess } from '../support/process.ts';
import type { ServiceProcess } from '../support/process.ts';
import { killNow } from '../support/processes.ts';
import { environmentFor, registerServiceAccount } from '../support/service-environment.ts';
import { until as untilSo } from '../support/until.ts';
import { Gate } from './gate.ts';

export const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
/** How the harness names itself to Postgres: what bears the service's name is the service. */
const HARNESS = 'crash-test';
const SERVICE = 'merchant-bedrock';

export interface HouseOptions {
  database: TestDatabase;
  /** Where it can be killed. */
  cluster?: EmbeddedCluster;
  /** What Node is told to run as the service; default: from source. */
  entry?: readonly string[];
  say?: (line: string) => void;
}

/** What a dead process has left in the database. */
export interface Remains {
  /** Its rows in `processes`. */
  processes: string[];
  /** Its sessions at Postgres: what they were doing goes on without it. */
  sessions: number[];
}

/** Everything around the service: a database, the stand-in behind a gate, and connections that see all. The service comes and goes. */
export class House implements AsyncDisposable {
  readonly standIn: StandIn;
  readonly gate: Gate;
  readonly admin: pg.Pool;
  readonly operatorToken: string;
  readonly cluster: EmbeddedCluster | undefined;
  readonly say: (line: string) => void;
  readonly #options: HouseOptions;
  readonly #env: Record<string, string>;
  readonly #onExit = (): void => {
    if (this.#service !== undefined) killNow([this.#service.pid]);
  };
  #database: Database;
  #service: ServiceProcess | undefined;

  private constructor(
    options: HouseOptions,
    parts: {
      standIn: StandIn;
      gate: Gate;
      admin: pg.Pool;
      operatorToken: string;
      env: Record<string, string>;
    },
  ) {
    this.#options = options;
    this.cluster = options.cluster;
    this.say = options.say ?? (() => undefined);
    this.standIn = parts.standIn;
    this.gate = parts.gate;
    this.admin = parts.admin;
    this.operatorToken = parts.operatorToken;
    this.#env = parts.env;
    this.#database = this.#connect();
    // The last resort, when nobody waits for an orderly end.
    process.on('exit', this.#onExit);
  }

  static async open(options: HouseOptions): Promise<House> {
    const { adminUrl, url } = options.database;
    const standIn = await startStandIn();
    const gate = await Gate.before(standIn.url);
    const admin = new pg.Pool({ connectionString: adminUrl, max: 4, application_name: HARNESS });
    admin.on('error', () => undefined);
    const { arn } = registerServiceAccount(standIn);
    standIn.addAccessKey(AWS.merchantA);
    standIn.addAccessKey(AWS.merchantB);
    const env = {
      ...environmentFor(url, standIn.url, arn),
      ENDPOINT_BEDROCK_RUNTIME: gate.url,
      // Callers that leave must not keep a round waiting.
      DRAIN_TIMEOUT_MS: '1500',
      DATABASE_CONNECTIONS_MAX: '8',
      LOG_LEVEL: 'warn',
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
    };
    try {
      await importPrice(admin);
      const operator = await createOperatorKey({
        adminUrl,
        pepper: new Secret(Buffer.from(env.TOKEN_PEPPER, 'base64')),
        environment: 'test',
        name: 'crash test operator',
        scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:usage:read', 'ops:audit:read'],
        expiresInDays: 1,
      });
      return new House(options, { standIn, gate, admin, operatorToken: operator.token, env });
    } catch (error) {
      await admin.end();
      await gate[Symbol.asyncDispose]();
      await standIn.close();
      throw error;
    }
  }

  /** The service that runs now. */
  get service(): ServiceProcess {
    if (this.#service === undefined) throw new Error('no service runs');
    return this.#service;
  }

  get audit(): AuditStore {
    return new AuditStore(this.#database);
  }

  /** The ledger's own functions, as another replica would call them. */
  newLedgerStore(): LedgerStore {
    return new LedgerStore(this.#database, { processId: randomUUID() });
  }

  async startService(): Promise<ServiceProcess> {
    this.#service = await startServiceProcess(this.#env, [], this.#options.entry);
    return this.#service;
  }

  /** What the service that runs now has at the database. Ask just before it is killed, or just after. */
  async remains(): Promise<Remains> {
    const processes = await this.admin.query<{ id: string }>('SELECT id FROM processes');
    const sessions = await this.admin.query<{ pid: number }>(
      'SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1',
      [SERVICE],
    );
    return {
      processes: processes.rows.map(({ id }) => id),
      sessions: sessions.rows.map(({ pid }) => pid),
    };
  }

  /** Sessions of the service that wait for a lock in a statement of this name. */
  async waitingFor(statement: 'ledger_hold' | 'ledger_settle'): Promise<number> {
    const { rows } = await this.admin.query<{ count: string }>(
      `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1 AND wait_event_type = 'Lock' AND query LIKE $2`,
      [SERVICE, `%${statement}(%`],
    );
    return Number(rows[0]?.count);
  }

  /** As if the host of these sessions were gone, and Postgres had noticed. */
  async endSessions(sessions: readonly number[]): Promise<void> {
    await this.admin.query('SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid', [sessions]);
  }

  /** Waits until Postgres has done what it was asked by someone who is dead. */
  async sessionsOver(sessions: readonly number[]): Promise<void> {
    await until('the sessions of the dead process are over', async () => {
      const { rowCount } = await this.admin.query('SELECT 1 FROM pg_stat_activity WHERE pid = ANY ($1)', [
        sessions,
      ]);
      return rowCount === 0;
    });
  }

  async heldRows(merchants: readonly string[]): Promise<number> {
    const { rows } = await this.admin.query<{ count: string }>(
      `SELECT count(*) FROM calls WHERE state = 'held' AND merchant_id = ANY ($1)`,
      [merchants],
    );
    return Number(rows[0]?.count);
  }

  /** Takes the locks that every admission and settlement of these merchants needs, and keeps them. */
  async lockHeads(merchants: readonly string[]): Promise<{ release: () => Promise<void> }> {
    const client = await this.admin.connect();
    // Postgres may be killed meanwhile, and the lock with it.
    client.on('error', () => undefined);
    await client.query('BEGIN');
    await client.query(
      'SELECT 1 FROM audit_heads WHERE merchant_id = ANY ($1) ORDER BY merchant_id FOR UPDATE',
      [merchants],
    );
    let released = false;
    const release = async () => {
      if (released) return;
      released = true;
      const failed = await client.query('ROLLBACK').then(
        () => false,
        () => true,
      );
      client.release(failed);
    };
    return { release };
  }

  /** Postgres comes back on the same data directory; connections of before are dead. */
  async restartPostgres(): Promise<void> {
    await this.cluster?.up();
    await this.#database[Symbol.asyncDispose]().catch(() => undefined);
    this.#database = this.#connect();
    await until('Postgres answers', () =>
      this.admin.query('SELECT 1').then(
        () => true,
        () => false,
      ),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#onExit);
    await this.#service?.[Symbol.asyncDispose]();
    await this.#database[Symbol.asyncDispose]().catch(() => undefined);
    await this.gate[Symbol.asyncDispose]();
    await this.standIn.close();
    await this.admin.end();
  }

  #connect(): Database {
    const url = new URL(this.#options.database.url);
    url.searchParams.set('application_name', HARNESS);
    return new Database({
      url: new Secret(url.href),
      connectionsMax: 2,
      statementTimeoutMs: 10_000,
      onPoolError: () => undefined,
    });
  }
}

/** Waits for a moment of a round, which may not come at all. @throws WaitedInVain when it does not within `limitMs` */
export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  limitMs = 8_000,
): Promise<void> {
  await untilSo(what, isSo, { limitMs, everyMs: 5 });
}

/** The price of the model, so that calls cost money and limits on money count. */
async function importPrice(admin: pg.Pool): Promise<void> {
  await admin.query(
    `INSERT INTO prices (model_id, region, profile, tier, valid_from, input, output, cache_read, cache_write_5m, context_tokens,
       max_output_tokens, source, source_date, imported_by)
     VALUES ($1, '*', 'in-region', 'standard', '2026-01-01', 800000000, 4000000000, 80000000, 1000000000, 200000, 8192, 'crash test',
       '2026-01-01', 'crash test')`,
    [MODEL],
  );
}

/** The last lines that a service wrote. */
export function lastWords(service: ServiceProcess | undefined): string {
  return (service?.output() ?? '').split('\n').slice(-12).join('\n');
}
