import { readConfig } from '../../src/config/env.ts';
import { build } from '../../src/container.ts';
import { newLogger } from '../../src/observability/logger.ts';
import type { Service } from '../../src/service.ts';
import type { TestService } from './service.ts';

export interface Replica extends AsyncDisposable {
  url: string;
  service: Service;
  /** What it logged, line by line. */
  logLines: string[];
}

/** Another service on the same database, with caches and connections of its own, in this process. */
export async function startReplica(
  of: Pick<TestService, 'env'>,
  settings: Record<string, string> = {},
): Promise<Replica> {
  const { config, secrets } = readConfig({ ...of.env, ...settings });
  const logLines: string[] = [];
  const logger = newLogger('info', { write: (line: string) => void logLines.push(line) });
  const service = await build(config, secrets, { logger });
  const { port } = await service.listen();
  return {
    url: `http://127.0.0.1:${String(port)}`,
    service,
    logLines,
    [Symbol.asyncDispose]: async () => {
      await service.shutDown();
      await service[Symbol.asyncDispose]();
    },
  };
}
