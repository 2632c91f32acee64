import { existsSync, readFileSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import { ambientProblems } from './ambient.ts';
import { dangers } from './dangers.ts';
import { ignoreInspectorSignal, processFacts, processProblems } from './process-dangers.ts';
import { newSecrets } from './secrets.ts';
import type { Secrets } from './secrets.ts';
import { SECRET_SETTINGS } from './secret-settings.ts';
import type { SecretValues } from './secret-settings.ts';
import type { AnySetting } from './setting.ts';
import { SETTINGS } from './settings.ts';
import type { Config } from './settings.ts';

/** Everything that keeps the service from starting, all at once. Values are never shown. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(
      `The configuration has ${String(problems.length)} problem(s):\n${problems.map((problem) => `  - ${problem}`).join('\n')}`,
    );
    this.problems = problems;
  }
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Takes .env of the working directory into the environment, if there is one. What is set already stays. */
export function loadDotEnv(): void {
  if (existsSync('.env')) process.loadEnvFile('.env');
}

/**
 * Reads the configuration in layers: defaults, then the file that CONFIG_FILE names (YAML or JSON), then the environment, then flags.
 * This file is the only reader of `process.env`.
 * @throws ConfigError with every missing, wrong or dangerous setting.
 */
export function readConfig(
  environment: Environment = process.env,
  flags: Environment = {},
): { config: Config; secrets: Secrets } {
  const env = { ...environment, ...flags };
  const problems: string[] = [];
  const file = readConfigFile(env['CONFIG_FILE'], problems);
  const config = readSettings(
    SETTINGS,
    (name, setting) => env[setting.env] ?? file[name],
    problems,
  ) as Config;
  const values = readSettings(
    SECRET_SETTINGS,
    (_name, setting) => secretText(env, setting.env, problems),
    problems,
  ) as SecretValues;
  problems.push(...ambientProblems(env, config.allowAmbientAws, config.environment));
  if (problems.length === 0) problems.push(...dangers(config, values));
  if (problems.length > 0) throw new ConfigError(problems);
  return { config, secrets: newSecrets(values) };
}

/**
 * Refuses, in production, a process whose memory somebody could read: an inspector, snapshots, core files.
 * @throws ConfigError
 */
export function assertSafeProcess({ environment }: Pick<Config, 'environment'>): void {
  if (environment !== 'production') return;
  const problems = processProblems(processFacts(process.env['NODE_OPTIONS']));
  if (problems.length > 0) throw new ConfigError(problems);
  ignoreInspectorSignal();
}

function readSettings(
  settings: Readonly<Record<string, AnySetting>>,
  lookUp: (name: string, setting: AnySetting) => string | undefined,
  problems: string[],
): Record<string, unknown> {
  const values: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries(settings)) {
    const given = lookUp(name, setting);
    const raw = given === undefined || given === '' ? setting.fallback : given;
    if (raw === undefined) {
      if (setting.optional !== true) problems.push(`${setting.env} is missing. ${setting.about}`);
      continue;
    }
    const parsed = setting.read.safeParse(raw);
    if (parsed.success) values[name] = parsed.data;
    else problems.push(`${setting.env} ${parsed.error.issues[0]?.message ?? 'is not valid'}`);
  }
  // An empty list stands in for what could not be read, so that the checks that follow can run and report too.
  values['allowAmbientAws'] ??= [];
  return values;
}

function secretText(env: Environment, name: string, problems: string[]): string | undefined {
  const path = env[`${name}_FILE`];
  if (path === undefined || path === '') return env[name];
  if (env[name] !== undefined && env[name] !== '')
    problems.push(`${name} and ${name}_FILE are both set: choose one`);
  if (existsSync(path)) return readFileSync(path, 'utf8').trim();
  problems.push(`${name}_FILE names a file that does not exist`);
  return undefined;
}

function readConfigFile(path: string | undefined, problems: string[]): Record<string, string> {
  if (path === undefined || path === '') return {};
  const settings: Record<string, string> = {};
  for (const [name, value] of Object.entries(parseConfigFile(path, problems))) {
    if (name in SECRET_SETTINGS)
      problems.push(`CONFIG_FILE holds the secret "${name}": secrets come from the environment or a *_FILE`);
    else if (!(name in SETTINGS)) problems.push(`CONFIG_FILE has an unknown setting "${name}"`);
    else settings[name] = Array.isArray(value) ? value.map(String).join(',') : String(value);
  }
  return settings;
}

function parseConfigFile(path: string, problems: string[]): object {
  try {
    const parsed: unknown = parseYaml(readFileSync(path, 'utf8'));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed;
    problems.push('CONFIG_FILE must hold names and values');
  } catch (error) {
    // Only the first line: the rest of a YAML error quotes the file.
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : 'unknown reason';
    problems.push(`CONFIG_FILE cannot be read: ${reason}`);
  }
  return {};
}
