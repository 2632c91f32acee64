import type { z } from 'zod';
import { parseToken } from '../../src/auth/token.ts';
import { CREDENTIAL_KINDS } from '../../src/domain/credential.ts';
import { createMerchantBody } from '../../src/http/handlers/ops/create-merchant.ts';
import { listOf, wholeNumber } from './arguments.ts';
import type { Options, Values } from './arguments.ts';

export const ONBOARD_OPTIONS = {
  merchant: { type: 'string' },
  name: { type: 'string' },
  region: { type: 'string' },
  'credential-name': { type: 'string' },
  kind: { type: 'string' },
  models: { type: 'string' },
  activate: { type: 'string' },
  credential: { type: 'string' },
  'no-credential': { type: 'boolean' },
  'allow-direct': { type: 'boolean' },
  'allow-service-defaults': { type: 'boolean' },
  regions: { type: 'string' },
  'key-name': { type: 'string' },
  scopes: { type: 'string' },
  'expires-in-days': { type: 'string' },
  url: { type: 'string' },
  'secrets-stdin': { type: 'boolean' },
  'secrets-fd': { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const satisfies Options;
export type OnboardFlags = Values<typeof ONBOARD_OPTIONS>;

export const SECRET_NAMES = [
  'operatorToken',
  'awsAccessKeyId',
  'awsSecretAccessKey',
  'awsSessionToken',
  'bedrockApiKey',
  'merchantToken',
] as const;
export type SecretName = (typeof SECRET_NAMES)[number];
export type GivenSecrets = Partial<Record<SecretName, string>>;

/** The body of POST /api/ops/merchants, checked by the schema of that route. */
export type Order = z.output<typeof createMerchantBody>;

/** Which flag or member a field of the body comes from, and what it must be where the schema's own words would not help. */
const FIELDS: Readonly<Record<string, { from: string; rule?: string }>> = {
  id: { from: '--merchant' },
  name: { from: '--name', rule: 'must be 1 to 200 characters' },
  regions: { from: '--regions' },
  'apiKey.name': { from: '--key-name', rule: 'must be 1 to 200 characters' },
  'apiKey.scopes': { from: '--scopes' },
  'apiKey.expiresInDays': { from: '--expires-in-days', rule: 'must be a whole number from 1 to 365' },
  'credential.name': { from: '--credential-name', rule: 'must be 1 to 200 characters' },
  'credential.region': { from: '--region' },
  'credential.models': { from: '--models', rule: 'must name 1 to 50 models' },
};
/** Stand in for secrets that are not there yet, so that everything else can be checked before they are asked for. */
const NOT_YET = {
  awsAccessKeyId: 'AKIA'.padEnd(20, '0'),
  awsSecretAccessKey: 'x'.repeat(40),
  bedrockApiKey: 'x'.repeat(20),
};
const OF_CREDENTIAL = ['region', 'credential-name', 'kind', 'models'] as const;

/** What is wrong with the flags, each problem named after its flag. */
export function flagProblems(flags: OnboardFlags): string[] {
  const problems: string[] = [];
  if (flags.merchant === undefined) problems.push('--merchant is missing: the id of the new merchant');
  if (flags.name === undefined) problems.push('--name is missing: what people call the new merchant');
  if (flags['no-credential'] === true) {
    for (const flag of OF_CREDENTIAL)
      if (flags[flag] !== undefined) problems.push(`--${flag} does not go with --no-credential`);
  } else if (flags.region === undefined)
    problems.push('--region is missing: where the credential is used (or give --no-credential)');
  if (flags.models !== undefined && kindOf(flags) !== 'assume-role')
    problems.push('--models goes with --kind assume-role');
  if (flags.credential !== undefined) problems.push('--credential goes with --activate');
  if (!isKind(kindOf(flags))) problems.push(`--kind must be ${CREDENTIAL_KINDS.join(' or ')}`);
  const kind = isKind(kindOf(flags)) ? kindOf(flags) : 'access-key';
  const missing = new Set(problems.map((problem) => problem.split(' ')[0]));
  return [
    ...problems,
    ...checkBody(bodyOf({ ...flags, kind }, NOT_YET)).filter((one) => !missing.has(one.split(' ')[0])),
  ];
}

/** The secrets that these flags call for, and those that may come besides. */
export function secretsWanted(flags: OnboardFlags): { required: SecretName[]; optional: SecretName[] } {
  if (flags.activate !== undefined)
    return { required: flags.url === undefined ? [] : ['merchantToken'], optional: [] };
  const required: SecretName[] = flags.url === undefined ? [] : ['operatorToken'];
  if (flags['no-credential'] === true || kindOf(flags) === 'assume-role') return { required, optional: [] };
  if (kindOf(flags) === 'bedrock-api-key') return { required: [...required, 'bedrockApiKey'], optional: [] };
  return { required: [...required, 'awsAccessKeyId', 'awsSecretAccessKey'], optional: ['awsSessionToken'] };
}

/** What is wrong with a set of secrets that is complete as far as the caller goes. Values are never repeated. */
export function secretProblems(flags: OnboardFlags, given: GivenSecrets): string[] {
  const { required, optional } = secretsWanted(flags);
  const problems = required
    .filter((name) => given[name] === undefined)
    .map((name) => `${name} is missing from the secrets`);
  const wanted = new Set([...required, ...optional]);
  for (const name of SECRET_NAMES) {
    const value = given[name];
    if (value === undefined) continue;
    const problem = wanted.has(name) ? secretProblem(name, value) : strayReason(name, flags);
    if (problem !== undefined) problems.push(`${name} ${problem}`);
  }
  return wanted.has('awsSessionToken') ? [...problems, ...pairProblems(given)] : problems;
}

/** Temporary keys (ASIA) come with a session token, long-lived ones (AKIA) without. */
function pairProblems({ awsAccessKeyId = '', awsSessionToken }: GivenSecrets): string[] {
  if (awsAccessKeyId.startsWith('ASIA') && awsSessionToken === undefined)
    return ['awsSessionToken is missing: a key that begins with ASIA is temporary'];
  if (awsAccessKeyId.startsWith('AKIA') && awsSessionToken !== undefined)
    return ['awsSessionToken does not belong to a key that begins with AKIA: leave it out'];
  return [];
}

/** What is wrong with one secret by its form alone; undefined when nothing is. */
export function secretProblem(name: SecretName, value: string): string | undefined {
  if (name === 'merchantToken')
    return parseToken(value)?.kind === 'merchant'
      ? undefined
      : "must be a token of the merchant's, whole: it begins with mbk_";
  if (name === 'operatorToken')
    return parseToken(value)?.kind === 'operator'
      ? undefined
      : "must be an operator's token, whole: it begins with mbo_ (npm run operator-key makes one)";
  const kind = name === 'bedrockApiKey' ? 'bedrock-api-key' : 'access-key';
  const flags = { merchant: 'xx', name: 'x', region: 'us-east-1', kind };
  const [problem] = checkBody(bodyOf(flags, { ...NOT_YET, [name]: value }));
  return problem?.replace(/^\S+ /, '');
}

/** The order, once flags and secrets have no problem. */
export function orderOf(flags: OnboardFlags, secrets: GivenSecrets): Order {
  return createMerchantBody.parse(bodyOf(flags, secrets));
}

function strayReason(name: SecretName, flags: OnboardFlags): string {
  if (flags.activate !== undefined) return 'does not go with --activate';
  if (name === 'merchantToken') return 'goes with --activate and --url';
  if (name === 'operatorToken')
    return 'goes with --url; without it, the database of the configuration is written directly';
  return flags['no-credential'] === true
    ? 'does not go with --no-credential'
    : `does not go with --kind ${isKind(kindOf(flags)) ? kindOf(flags) : '(unknown)'}`;
}

function kindOf(flags: OnboardFlags): string {
  return flags.kind ?? 'access-key';
}

function isKind(text: string): boolean {
  return (CREDENTIAL_KINDS as readonly string[]).includes(text);
}

function bodyOf(flags: OnboardFlags, secrets: GivenSecrets): unknown {
  const { scopes, 'expires-in-days': days } = flags;
  return {
    id: flags.merchant,
    name: flags.name,
    directAllowed: flags['allow-direct'] === true,
    serviceDefaultsAllowed: flags['allow-service-defaults'] === true,
    regions: listOf(flags.regions ?? ''),
    apiKey: {
      name: flags['key-name'] ?? 'first key',
      ...(scopes !== undefined && { scopes: listOf(scopes) }),
      ...(days !== undefined && { expiresInDays: wholeNumber(days) }),
    },
    ...(flags['no-credential'] !== true && { credential: credentialOf(flags, secrets) }),
  };
}

function credentialOf(flags: OnboardFlags, secrets: GivenSecrets): unknown {
  const { awsAccessKeyId, awsSecretAccessKey, awsSessionToken, bedrockApiKey } = secrets;
  const named = { name: flags['credential-name'] ?? 'main', region: flags.region };
  if (kindOf(flags) === 'assume-role')
    return {
      kind: 'assume-role',
      ...named,
      ...(flags.models !== undefined && { models: listOf(flags.models) }),
    };
  const common = { ...named, makeDefault: true };
  if (kindOf(flags) === 'bedrock-api-key') return { kind: 'bedrock-api-key', bedrockApiKey, ...common };
  return {
    kind: 'access-key',
    awsAccessKeyId,
    awsSecretAccessKey,
    ...(awsSessionToken !== undefined && { awsSessionToken }),
    ...common,
  };
}

/** Each problem begins with the flag or the member it is about. */
function checkBody(body: unknown): string[] {
  const result = createMerchantBody.safeParse(body);
  if (result.success) return [];
  const problems = result.error.issues.map((issue) => {
    const path = issue.path.filter((part) => typeof part === 'string').join('.');
    const field = FIELDS[path];
    return `${field?.from ?? path.replace('credential.', '')} ${field?.rule ?? issue.message}`;
  });
  return [...new Set(problems)];
}
