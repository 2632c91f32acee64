import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type pg from 'pg';
import { Secret } from '../../src/domain/secret.ts';
import { AWS } from '../../test/support/aws-keys.ts';
import { createDatabase, onServer, startEmbeddedPostgres } from '../../test/support/postgres.ts';
import { environmentFor } from '../../test/support/service-environment.ts';
import { BUILT, buildService } from '../cli/build.ts';
import { Interrupted } from '../cli/run.ts';
import { createOperatorKey } from '../operator-key.ts';
import { statOf } from './proc.ts';
import { median } from './statistics.ts';
import { fromSource, portOfMessage, start } from './processes.ts';
import type { Running } from './processes.ts';

const KMS_KEY_ID = '11111111-2222-3333-4444-555555555555';
const COMMITS = 200;
export const REGION = 'us-east-1';

export interface DatabaseFacts {
  version: string;
  fsync: string;
  synchronousCommit: string;
  /** Median of one that writes next to nothing, over one connection: what this disk makes everybody wait. Milliseconds. */
  commitMs: number;
  /** The first process of the cluster; all its others are its children. */
  pid: number;
  adminUrl: string;
}

/** Everything that is measured, each in a process of its own on loopback. */
export interface House extends AsyncDisposable {
  database: DatabaseFacts;
  standIn: Running;
  bareProxy: Running;
  service: Running;
  /** Whether the service runs from `dist`, as in production, or from source. */
  built: boolean;
  operatorToken: string;
  /** Another process of the same service, e.g. under a profiler. */
  startService: (nodeArgs: readonly string[]) => Promise<Running>;
  /** Another bare proxy. */
  startBareProxy: () => Promise<Running>;
  /** Removed at the end. */
  directory: string;
}

export async function startHouse(say: (line: string) => void, stopped: AbortSignal): Promise<House> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  const started = async (starting: Promise<Running>): Promise<Running> => {
    const running = await starting;
    closers.push(running.stop);
    if (stopped.aborted) throw new Interrupted();
    return running;
  };
  try {
    const built = await buildService(say);
    const directory = await mkdtemp(path.join(tmpdir(), 'merchant-bedrock-bench-'));
    closers.push(() => rm(directory, { recursive: true, force: true }));
    const { url, ...database } = await startDatabase(closers);
    say(
      `Postgres ${database.version}: fsync ${database.fsync}, synchronous_commit ${database.synchronousCommit}, a commit takes ${database.commitMs.toFixed(2)} ms`,
    );
    if (stopped.aborted) throw new Interrupted();
    const standIn = await started(startStandIn(path.join(directory, 'stand-in.log')));
    const startBareProxy = () => started(newBareProxy(standIn.port, path.join(directory, 'bare-proxy.log')));
    const bareProxy = await startBareProxy();
    const kmsKeyArn = `arn:aws:kms:${REGION}:${AWS.service.accountId}:key/${KMS_KEY_ID}`;
    const env = environmentFor(url, `http://127.0.0.1:${String(standIn.port)}`, kmsKeyArn);
    let services = 0;
    const startService = (nodeArgs: readonly string[]) =>
      started(
        start({
          args: [
            ...nodeArgs,
            ...(built ? [BUILT] : fromSource(new URL('../../src/main.ts', import.meta.url))),
          ],
          env,
          logFile: path.join(directory, `service-${String(++services)}.log`),
          portOf: portOfMessage,
        }),
      );
    const service = await startService([]);
    say(`the service runs ${built ? 'as node dist/main.js' : 'from source (tsx)'}`);
    const operator = await createOperatorKey({
      adminUrl: database.adminUrl,
      pepper: new Secret(Buffer.from(env.TOKEN_PEPPER, 'base64')),
      environment: 'test',
      name: 'bench operator',
      scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:usage:read', 'ops:audit:read'],
      expiresInDays: 1,
    });
    return {
      database,
      standIn,
      bareProxy,
      service,
      built,
      operatorToken: operator.token,
      startService,
      startBareProxy,
      directory,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A cluster of its own with Postgres' own settings: what is measured includes waiting for the disk. */
async function startDatabase(closers: (() => Promise<void>)[]): Promise<DatabaseFacts & { url: string }> {
  const cluster = await startEmbeddedPostgres();
  closers.push(() => cluster.stop());
  const { adminUrl, url } = await createDatabase(
    cluster.adminUrl,
    `merchant_bedrock_bench_${randomBytes(4).toString('hex')}`,
  );
  return onServer(adminUrl, async (client) => {
    const show = async (name: string) => {
      const { rows } = await client.query<{ value: string }>(`SELECT current_setting($1) AS value`, [name]);
      return rows[0]?.value ?? '';
    };
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    return {
      version: await show('server_version'),
      fsync: await show('fsync'),
      synchronousCommit: await show('synchronous_commit'),
      commitMs: await medianCommitMs(client),
      pid: statOf(rows[0]?.pid ?? 0).parent,
      adminUrl,
      url,
    };
  });
}

async function medianCommitMs(client: pg.Client): Promise<number> {
  const times: number[] = [];
  for (let commit = 0; commit < COMMITS; commit += 1) {
    const from = performance.now();
    await client.query("SELECT pg_logical_emit_message(true, 'bench', 'commit')");
    times.push(performance.now() - from);
  }
  return median(times);
}

function startStandIn(logFile: string): Promise<Running> {
  const keys = [AWS.service, AWS.serviceDefault, AWS.merchantA];
  return start({
    args: [
      ...fromSource(new URL('../../test/aws/main.ts', import.meta.url)),
      ...keys.flatMap(({ accessKeyId, secretAccessKey, accountId }) => [
        '--access-key',
        `${accessKeyId}:${secretAccessKey}:${accountId}`,
      ]),
      '--kms-key',
      `${KMS_KEY_ID}:${AWS.service.accountId}:${REGION}:vault`,
    ],
    logFile,
    portOf: (_message, log) => {
      const port = /^listening on http:\/\/127\.0\.0\.1:(\d+)$/m.exec(log)?.[1];
      return port === undefined ? undefined : Number(port);
    },
  });
}

function newBareProxy(standInPort: number, logFile: string): Promise<Running> {
  const { accessKeyId, secretAccessKey } = AWS.merchantA;
  return start({
    args: [
      ...fromSource(new URL('bare-proxy.ts', import.meta.url)),
      String(standInPort),
      accessKeyId,
      secretAccessKey,
      REGION,
    ],
    logFile,
    portOf: portOfMessage,
  });
}
