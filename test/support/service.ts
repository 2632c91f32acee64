import { createOperatorKey } from '../../scripts/operator-key.ts';
import { readConfig } from '../../src/config/env.ts';
import { build } from '../../src/container.ts';
import type { Overrides } from '../../src/container.ts';
import { Secret } from '../../src/domain/secret.ts';
import { newLogger } from '../../src/observability/logger.ts';
import type { Service } from '../../src/service.ts';
import { startStandIn } from '../aws/stand-in.ts';
import type { StandIn } from '../aws/stand-in.ts';
import { newTestDatabase } from './database.ts';
import { environmentFor, registerServiceAccount } from './service-environment.ts';
import type { TestDatabase } from './postgres.ts';

export interface TestService extends AsyncDisposable {
  /** `http://127.0.0.1:PORT` */
  url: string;
  standIn: StandIn;
  database: TestDatabase;
  service: Service;
  /** What the service logged, line by line. */
  logLines: string[];
  operatorToken: string;
  /** The environment the service was configured with; tests that start another process of it use the same. */
  env: Record<string, string>;
}

/**
 * The real service, in this process, on a database of its own (or the one given) and against the AWS stand-in. `settings` are environment
 * variables, or make them of the stand-in.
 */
export async function startTestService(
  settings: Record<string, string> | ((standIn: StandIn) => Record<string, string>) = {},
  given?: TestDatabase,
  overrides: Pick<Overrides, 'clock' | 'monotonic'> = {},
): Promise<TestService> {
  const resources = new Resources();
  try {
    const database = given ?? resources.use(await newTestDatabase());
    const standIn = resources.use(await startStandIn());
    const { arn } = registerServiceAccount(standIn);
    const more = typeof settings === 'function' ? settings(standIn) : settings;
    const env = { ...environmentFor(database.url, standIn.url, arn), ...more };
    const logLines: string[] = [];
    const logger = newLogger('info', { write: (line: string) => void logLines.push(line) });
    const { config, secrets } = readConfig(env);
    const service = resources.use(await build(config, secrets, { ...overrides, logger }));
    const { port } = await service.listen();
    resources.defer(() => service.shutDown());
    const operator = await createOperatorKey({
      adminUrl: database.adminUrl,
      pepper: new Secret(Buffer.from(env['TOKEN_PEPPER'], 'base64')),
      environment: 'test',
      name: 'test operator',
      scopes: ['ops:merchants:read', 'ops:merchants:write', 'ops:usage:read', 'ops:audit:read'],
      expiresInDays: 1,
    });
    const url = `http://127.0.0.1:${String(port)}`;
    return {
      url,
      standIn,
      database,
      service,
      logLines,
      env,
      operatorToken: operator.token,
      [Symbol.asyncDispose]: () => resources.dispose(),
    };
  } catch (error) {
    await resources.dispose();
    throw error;
  }
}

/** What AsyncDisposableStack will do once Node has it: closes in reverse order. */
class Resources {
  readonly #closers: (() => Promise<void>)[] = [];

  use<T extends AsyncDisposable>(resource: T): T {
    this.#closers.push(() => resource[Symbol.asyncDispose]() as Promise<void>);
    return resource;
  }

  defer(close: () => Promise<void>): void {
    this.#closers.push(close);
  }

  async dispose(): Promise<void> {
    for (const close of this.#closers.reverse()) await close();
  }
}
