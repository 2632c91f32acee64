import { parseArgs } from 'node:util';
import { assertSafeProcess, ConfigError, loadDotEnv, readConfig } from './config/env.ts';
import { build } from './container.ts';
import { endOnCrash } from './observability/crash.ts';

const HELP = `merchant-bedrock: AWS Bedrock for many merchants, each with its own AWS account

Usage: npm start -- [options]

  --port N         listens on this port instead of PORT
  --config FILE    reads this YAML or JSON file instead of CONFIG_FILE
  --check-config   reads and checks the configuration and the database, prints what is wrong, and ends
  --help           prints this

Settings come from the environment (.env is read when it is there); .env.example explains each.
`;

function readArguments(): { help: boolean; checkOnly: boolean; overrides: Record<string, string> } {
  const { values } = parseArgs({
    options: {
      port: { type: 'string' },
      config: { type: 'string' },
      'check-config': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  return {
    help: values.help === true,
    checkOnly: values['check-config'] === true,
    overrides: {
      ...(values.port !== undefined && { PORT: values.port }),
      ...(values.config !== undefined && { CONFIG_FILE: values.config }),
    },
  };
}

/** read env -> config -> build -> listen -> wait for a signal -> close */
async function main(): Promise<number> {
  const { help, checkOnly, overrides } = readArguments();
  if (help) {
    process.stdout.write(HELP);
    return 0;
  }
  loadDotEnv();
  const { config, secrets } = readConfig(undefined, overrides);
  assertSafeProcess(config);
  await using service = await build(config, secrets);
  if (checkOnly) {
    process.stdout.write('The configuration is complete and the database is ready.\n');
    return 0;
  }
  const { port } = await service.listen();
  service.logger.info('listening', { host: config.host, port, environment: config.environment });
  process.send?.({ port });
  const signal = await nextSignal();
  service.logger.info('shutting down', { signal });
  // A second signal does not wait for running calls.
  void nextSignal().then(() => {
    service.cutNow();
  });
  await service.shutDown();
  return 0;
}

function nextSignal(): Promise<string> {
  return new Promise((resolve) => {
    const finish = (signal: string) => {
      process.off('SIGTERM', finish).off('SIGINT', finish);
      resolve(signal);
    };
    process.on('SIGTERM', finish).on('SIGINT', finish);
  });
}

/** What a person reads on standard error. Arguments are not repeated: somebody may have typed a secret. */
function explain(error: unknown): { message: string; code: number } {
  if (error instanceof ConfigError) return { message: error.message, code: 2 };
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string' && code.startsWith('ERR_PARSE_ARGS'))
    return { message: 'An argument is not known, or lacks its value; see --help.', code: 2 };
  return { message: `Not started: ${error instanceof Error ? error.message : 'unknown reason'}`, code: 1 };
}

endOnCrash();
try {
  process.exitCode = await main();
} catch (error) {
  const { message, code } = explain(error);
  process.stderr.write(`${message}\n`);
  process.exitCode = code;
}
