import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { createOperatorKey } from '../../scripts/operator-key.ts';
import { Secret } from '../../src/domain/secret.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { find, findInTables, findInVault, secretOf } from '../support/canary.ts';
import type { Canaries } from '../support/canary.ts';
import { MerchantPerson, Person } from '../support/people.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { startServiceProcess } from '../support/process.ts';
import type { ServiceProcess } from '../support/process.ts';
import { environmentFor, registerServiceAccount } from '../support/service-environment.ts';

export const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
/** The part of every secret that all of them share, so that looking for all is looking for one. */
const IN_EVERY_SECRET = `town/${randomBytes(15).toString('base64')}`;
/** Long enough for streams that begin before a rotation and end after it. Milliseconds. */
export const OVERLAP_MS = 2_000;

export interface TownOptions {
  database: TestDatabase;
  /** What Node is told to run as the service; default: from source. */
  entry?: readonly string[];
  /** Settings besides the town's own. */
  env?: Record<string, string>;
}

export interface Key {
  accessKeyId: string;
  secretAccessKey: string;
  accountId: string;
}

/** A merchant whose credential is rotated again and again. */
export interface Citizen {
  id: string;
  token: string;
  apiKeyId: string;
  credentialId: string;
  accountId: string;
}

/** Two replicas of the service as processes of their own, one database, one AWS. */
export class Town implements AsyncDisposable {
  readonly standIn: StandIn;
  readonly admin: pg.Pool;
  readonly replicas: ServiceProcess[] = [];
  readonly #env: Record<string, string>;
  readonly #entry: readonly string[] | undefined;
  readonly #operatorToken: string;
  readonly #secrets = new Map([['AWS secret', IN_EVERY_SECRET]]);
  /** What processes wrote that are dead. */
  readonly #outputs: string[] = [];
  #keys = 0;

  private constructor(parts: {
    standIn: StandIn;
    admin: pg.Pool;
    env: Record<string, string>;
    entry: readonly string[] | undefined;
    operatorToken: string;
  }) {
    this.standIn = parts.standIn;
    this.admin = parts.admin;
    this.#env = parts.env;
    this.#entry = parts.entry;
    this.#operatorToken = parts.operatorToken;
  }

  static async open({ database, entry, env: more }: TownOptions): Promise<Town> {
    const standIn = await startStandIn();
    const admin = new pg.Pool({
      connectionString: database.adminUrl,
      max: 4,
      application_name: 'rotation-test',
    });
    admin.on('error', () => undefined);
    const { arn } = registerServiceAccount(standIn);
    const env = {
      ...environmentFor(database.url, standIn.url, arn),
      ROTATION_OVERLAP_MS: String(OVERLAP_MS),
      ROTATION_MIN_INTERVAL_MS: '0',
      DATABASE_CONNECTIONS_MAX: '10',
      LOG_LEVEL: 'warn',
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
      ...more,
    };
    const operator = await createOperatorKey({
      adminUrl: database.adminUrl,
      pepper: new Secret(Buffer.from(env.TOKEN_PEPPER, 'base64')),
      environment: 'test',
      name: 'rotation test operator',
      scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:usage:read', 'ops:audit:read'],
      expiresInDays: 1,
    });
    const town = new Town({ standIn, admin, env, entry, operatorToken: operator.token });
    try {
      town.replicas.push(...(await Promise.all([town.#start(), town.#start()])));
    } catch (error) {
      await town[Symbol.asyncDispose]();
      throw error;
    }
    return town;
  }

  /** A key pair that AWS knows from now on. */
  newKey(accountId: string, more: { arn?: string; createdAtMs?: number } = {}): Key {
    this.#keys += 1;
    const accessKeyId = `AKIATOWN${String(this.#keys).padStart(12, '0')}`;
    const secretAccessKey = `${IN_EVERY_SECRET}/${String(this.#keys)}/`.padEnd(40, 't');
    const key = { accessKeyId, secretAccessKey, accountId };
    this.standIn.addAccessKey({ ...key, ...more });
    return key;
  }

  async moveIn(id: string, key: Key): Promise<Citizen> {
    const answer = await new Person(this.replica(0).url, this.#operatorToken).post('/api/ops/merchants', {
      id,
      name: id,
      apiKey: { name: 'first' },
      credential: {
        kind: 'access-key',
        name: 'main',
        region: 'us-east-1',
        awsAccessKeyId: key.accessKeyId,
        awsSecretAccessKey: key.secretAccessKey,
        makeDefault: true,
      },
    });
    if (answer.status !== 201) throw new Error(`onboarding: ${answer.text}`);
    const { apiKey, credentialId } = answer.json as {
      apiKey: { id: string; token: string };
      credentialId: string;
    };
    this.#secrets.set(`API token of ${id}`, secretOf(apiKey.token));
    return { id, token: apiKey.token, apiKeyId: apiKey.id, credentialId, accountId: key.accountId };
  }

  replica(index: number): ServiceProcess {
    const replica = this.replicas[index];
    if (replica === undefined) throw new Error('no such replica');
    return replica;
  }

  /** The merchant's backend, talking to one replica. */
  at(index: number, { id, token, credentialId, apiKeyId }: Citizen): MerchantPerson {
    return new MerchantPerson(this.replica(index).url, { merchantId: id, token, credentialId, apiKeyId });
  }

  /** Puts a new process in the place of a dead one. */
  async restart(index: number): Promise<void> {
    this.#outputs.push(this.replica(index).output());
    this.replicas[index] = await this.#start();
  }

  /** The latest rotation of a credential, as the database has it. */
  async rotationOf({ credentialId }: Citizen): Promise<RotationRow | undefined> {
    const { rows } = await this.admin.query<RotationRow>(
      `SELECT version, state, labelled, due_at IS NULL AS settled FROM credential_rotations WHERE credential_id = $1 ORDER BY version DESC LIMIT 1`,
      [credentialId],
    );
    return rows[0];
  }

  /** Secrets, in whatever form, in what the processes wrote, in the tables, and in what the vault at AWS was told. */
  async leaks(more: Canaries = new Map()): Promise<string[]> {
    const wanted: Canaries = new Map([...this.#secrets, ...more]);
    const outputs = [...this.#outputs, ...this.replicas.map((replica) => replica.output())];
    return [
      ...outputs.flatMap((output) => find(wanted, 'an output', output)),
      ...(await findInTables(wanted, this.admin)),
      ...findInVault(wanted, this.standIn.journal),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.replicas.map((replica) => replica[Symbol.asyncDispose]()));
    await this.standIn.close();
    await this.admin.end();
  }

  #start(): Promise<ServiceProcess> {
    return startServiceProcess(this.#env, [], this.#entry);
  }
}

export interface RotationRow {
  version: number;
  state: string;
  labelled: string | null;
  /** Nothing is left to do. */
  settled: boolean;
}
