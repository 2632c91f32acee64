import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { ConfigError, readConfig } from '../../src/config/env.ts';

const KEY = 'MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=';
const GOOD = {
  DATABASE_URL: 'postgres://app:canary-password@127.0.0.1/db',
  TOKEN_PEPPER: KEY,
  SESSION_KEY: KEY,
  AWS_REGION: 'us-east-1',
  VAULT_KMS_KEY_ID: 'alias/vault',
};

function problemsOf(env: Record<string, string | undefined>): readonly string[] {
  try {
    readConfig({ ...GOOD, ...env });
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

function file(content: string, name = 'config.yaml'): string {
  const target = path.join(mkdtempSync(path.join(tmpdir(), 'mb-config-')), name);
  writeFileSync(target, content);
  return target;
}

describe('configuration', () => {
  test('takes defaults, then the file, then the environment', () => {
    expect(readConfig(GOOD).config).toMatchObject({
      port: 8080,
      environment: 'production',
      authDevTokens: false,
    });
    const CONFIG_FILE = file('port: 9001\nlogLevel: warn\nenabledRegions: [us-east-1, eu-west-1]\n');
    expect(readConfig({ ...GOOD, CONFIG_FILE }).config).toMatchObject({
      port: 9001,
      logLevel: 'warn',
      enabledRegions: ['us-east-1', 'eu-west-1'],
    });
    expect(readConfig({ ...GOOD, CONFIG_FILE, PORT: '9002' }).config.port).toBe(9002);
    expect(readConfig({ ...GOOD, CONFIG_FILE: file('{"port": 9003}', 'config.json') }).config.port).toBe(
      9003,
    );
  });

  test('lists everything that is missing, at once', () => {
    const missing = Object.fromEntries(Object.keys(GOOD).map((name) => [name, undefined]));
    const problems = problemsOf(missing);
    for (const name of Object.keys(GOOD))
      expect(problems).toContainEqual(expect.stringContaining(`${name} is missing`));
  });

  test.each([
    ['PORT', '80a', 'PORT must be a whole number'],
    ['AWS_REGION', 'mars-1', 'AWS_REGION must be a region'],
    ['TOKEN_PEPPER', 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=', 'TOKEN_PEPPER must be 32 random bytes'],
    ['DATABASE_URL', 'mysql://x', 'DATABASE_URL must be a postgres:// URL'],
    ['AUTH_DEV_TOKENS', 'true', 'AUTH_DEV_TOKENS=true is refused in production'],
    ['ENDPOINT_KMS', 'http://10.0.0.1', 'ENDPOINT_KMS must be https in production'],
    ['SERVICE_DEFAULTS_ENABLED', 'true', 'SERVICE_DEFAULTS_ENABLED needs'],
    ['TLS_CERT_FILE', '/a', 'TLS_CERT_FILE and TLS_KEY_FILE go together'],
    ['JWT_ALGORITHM', 'HS256', 'JWT_ALGORITHM needs JWT_ISSUER'],
    ['JWT_ALGORITHM', 'none', 'JWT_ALGORITHM must be'],
    ['TOKEN_PEPPER_FILE', '/nowhere', 'TOKEN_PEPPER_FILE names a file that does not exist'],
  ])('refuses %s=%s', (name, value, problem) => {
    expect(problemsOf({ [name]: value })).toContainEqual(expect.stringContaining(problem));
  });

  test.each([
    'AWS_BEARER_TOKEN_BEDROCK',
    'AWS_ENDPOINT_URL',
    'AWS_ENDPOINT_URL_BEDROCK_RUNTIME',
    'AWS_PROFILE',
    'AWS_CONFIG_FILE',
    'AWS_SHARED_CREDENTIALS_FILE',
    'AWS_MAX_ATTEMPTS',
    'AWS_AUTH_SCHEME_PREFERENCE',
    'NODE_EXTRA_CA_CERTS',
    'HTTPS_PROXY',
    'https_proxy',
  ])('refuses to start with %s in the environment, unless it is allowed by name', (name) => {
    expect(problemsOf({ [name]: 'x' })).toContainEqual(expect.stringContaining(`${name} is set`));
    expect(problemsOf({ [name]: 'x', ALLOW_AMBIENT_AWS: name })).toEqual([]);
  });

  test('checks the certificates of others in production, whatever is allowed by name', () => {
    const name = 'NODE_TLS_REJECT_UNAUTHORIZED';
    const allowed = { [name]: '0', ALLOW_AMBIENT_AWS: `HTTPS_PROXY,${name}` };
    const [problem, ...others] = problemsOf(allowed);
    expect(problem).toMatch(
      /^NODE_TLS_REJECT_UNAUTHORIZED is set: .+ in production ALLOW_AMBIENT_AWS does not/,
    );
    expect(others).toEqual([]);
    // Production is what runs where nothing is said; elsewhere a name is enough, and is needed.
    for (const NODE_ENV of ['development', 'test']) {
      expect(problemsOf({ ...allowed, NODE_ENV })).toEqual([]);
      expect(problemsOf({ [name]: '0', NODE_ENV })).toHaveLength(1);
    }
  });

  test('refuses secrets and unknown names in the config file', () => {
    const problems = problemsOf({ CONFIG_FILE: file('databaseUrl: postgres://x\nprot: 1\n') });
    expect(problems).toContainEqual(expect.stringContaining('holds the secret "databaseUrl"'));
    expect(problems).toContainEqual(expect.stringContaining('unknown setting "prot"'));
    expect(problemsOf({ CONFIG_FILE: '/nowhere.yaml' })).toContainEqual(
      expect.stringContaining('CONFIG_FILE cannot be read'),
    );
  });

  test('reads a secret from a file, and prints none', () => {
    const { secrets } = readConfig({
      ...GOOD,
      TOKEN_PEPPER: undefined,
      TOKEN_PEPPER_FILE: file(`${KEY}\n`, 'pepper'),
    });
    expect(secrets.tokenPepper.reveal()).toHaveLength(32);
    for (const text of [
      inspect(secrets, { depth: 9 }),
      JSON.stringify(secrets),
      String(secrets.databaseUrl),
    ]) {
      expect(text).not.toContain('canary-password');
      expect(text).not.toContain(KEY);
    }
  });

  test('never repeats a value in a problem', () => {
    expect(
      problemsOf({
        DATABASE_URL: 'canary-value',
        SESSION_KEY: 'canary-value',
        AWS_REGION: 'canary-value',
      }).join('\n'),
    ).not.toContain('canary-value');
  });
});
