import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import path from 'node:path';
import { Secret } from '../../src/domain/secret.ts';
import { startStandIn } from '../../test/aws/stand-in.ts';
import { AWS } from '../../test/support/aws-keys.ts';
import { createDatabase, dropDatabase, startEmbeddedPostgres } from '../../test/support/postgres.ts';
import {
  auditSettings,
  environmentFor,
  registerServiceAccount,
} from '../../test/support/service-environment.ts';
import { diffPrices } from '../../src/ledger/price-diff.ts';
import { atPriceDesk, importPrices, readPriceFile } from '../cli/price-book.ts';
import { createOperatorKey } from '../operator-key.ts';

/** What --json prints: everything a script needs to go on. */
export interface DemoFacts {
  baseUrl: string;
  merchantId: string;
  token: string;
  opsToken: string;
  credentialId: string;
  standInUrl: string;
  databaseUrl: string;
}

export interface House extends AsyncDisposable {
  facts: DemoFacts;
}

const ROOT = path.join(import.meta.dirname, '../..');
const MERCHANT_ID = 'merchant-abc';
/** On Node 20 every AWS SDK says once that its successors will want 22: true, and no part of a tour. */
const QUIET = { AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' };

/**
 * Starts everything and onboards one merchant. What has started is stopped again, in reverse order, when a later part fails or `stop` fires.
 * @param say told of each part as it is ready.
 */
export async function startHouse(say: (line: string) => void, stop: AbortSignal): Promise<House> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  const checkpoint = () => {
    if (stop.aborted) throw new Error('interrupted');
  };
  try {
    const database = await startDatabase(closers);
    say('✓ Postgres is up and migrated');
    say(`✓ the price book has ${String(await importStarterBook(database.adminUrl))} prices to start with`);
    checkpoint();
    const standIn = await startStandIn();
    closers.push(() => standIn.close());
    const { arn } = registerServiceAccount(standIn);
    standIn.addAccessKey(AWS.merchantA);
    standIn.addAccessKey(AWS.merchantADirect);
    say(`✓ the stand-in for AWS answers at ${standIn.url}`);
    const env = {
      ...environmentFor(database.url, standIn.url, arn),
      ...auditSettings(standIn),
      NODE_ENV: 'development',
      LOG_LEVEL: 'warn',
    };
    const service = await startService(env, closers);
    say(`✓ the service listens at ${service.baseUrl}`);
    checkpoint();
    const pepper = new Secret(Buffer.from(env.TOKEN_PEPPER, 'base64'));
    const operator = await createOperatorKey({
      adminUrl: database.adminUrl,
      pepper,
      environment: 'test',
      name: 'demo operator',
      scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:usage:read', 'ops:audit:read'],
      expiresInDays: 1,
    });
    const onboarded = await onboard(service.baseUrl, operator.token);
    say(`✓ ${MERCHANT_ID} is onboarded: credential ${onboarded.credentialId}, API key ${onboarded.apiKeyId}`);
    const { token, credentialId } = onboarded;
    const facts = {
      baseUrl: service.baseUrl,
      merchantId: MERCHANT_ID,
      token,
      opsToken: operator.token,
      credentialId,
      standInUrl: standIn.url,
      databaseUrl: database.url,
    };
    return { facts, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A database of an embedded cluster goes with its cluster; one of the reader's own server is dropped at the end. */
async function startDatabase(closers: (() => Promise<void>)[]) {
  const given = process.env['DATABASE_URL'];
  const name = `merchant_bedrock_demo_${randomBytes(4).toString('hex')}`;
  if (given !== undefined && given !== '') {
    closers.push(() => dropDatabase(given, name));
    return createDatabase(given, name);
  }
  const cluster = await startEmbeddedPostgres();
  closers.push(() => cluster.stop());
  return createDatabase(cluster.adminUrl, name);
}

/** What `npm run prices -- import prisma/prices.csv` does: every call of the demo has a cost. @returns how many prices. */
async function importStarterBook(adminUrl: string): Promise<number> {
  const book = readPriceFile(path.join(ROOT, 'prisma/prices.csv'));
  const { imported } = await atPriceDesk(new Secret(adminUrl), 'No prices were imported.', (desk) =>
    importPrices(desk, book, diffPrices([], book).digest),
  );
  return imported.added;
}

/** A process of its own, as in production, with nothing of this one's environment but the way to Node. */
async function startService(
  env: Record<string, string>,
  closers: (() => Promise<void>)[],
): Promise<{ baseUrl: string }> {
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(ROOT, 'src/main.ts')], {
    cwd: ROOT,
    env: { ...env, ...QUIET, PATH: process.env['PATH'] ?? '' },
    // Its log goes to our standard error: standard output is the tour's, or the one line of --json.
    stdio: ['ignore', 2, 2, 'ipc'],
    // Ctrl-C reaches the whole group of a terminal; the service is stopped by us, after the tour's last call.
    detached: true,
  });
  closers.push(() => stopChild(child));
  const port = await new Promise<number>((resolve, reject) => {
    child.once('message', (message: { port: number }) => {
      resolve(message.port);
    });
    child.once('exit', (code) => {
      reject(new Error(`the service ended with code ${String(code)} before it listened`));
    });
  });
  return { baseUrl: `http://127.0.0.1:${String(port)}` };
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await once(child, 'exit');
  clearTimeout(kill);
}

/** The real onboarding script, its secrets through standard input. */
async function onboard(
  baseUrl: string,
  operatorToken: string,
): Promise<{ token: string; credentialId: string; apiKeyId: string }> {
  const args = [
    '--url',
    baseUrl,
    '--merchant',
    MERCHANT_ID,
    '--name',
    'Demo merchant',
    '--region',
    'us-east-1',
    '--credential-name',
    'production account',
    '--allow-direct',
    '--allow-service-defaults',
    '--secrets-stdin',
    '--json',
  ];
  const child = spawn(process.execPath, ['--import', 'tsx', path.join(ROOT, 'scripts/onboard.ts'), ...args], {
    cwd: ROOT,
    env: { ...QUIET, PATH: process.env['PATH'] ?? '' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { accessKeyId: awsAccessKeyId, secretAccessKey: awsSecretAccessKey } = AWS.merchantA;
  child.stdin.end(JSON.stringify({ operatorToken, awsAccessKeyId, awsSecretAccessKey }));
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (printed += text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`onboarding ended with code ${String(code)}`);
  return JSON.parse(printed) as { token: string; credentialId: string; apiKeyId: string };
}
