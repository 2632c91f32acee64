import { CREDENTIAL_KINDS } from '../../src/domain/credential.ts';
import type { CredentialKind } from '../../src/domain/credential.ts';
import { MERCHANT_ID_PATTERN } from '../../src/domain/ids.ts';
import { MERCHANT_SCOPES } from '../../src/domain/principal.ts';
import { isBedrockRegion } from '../../src/domain/region.ts';
import type { Flags } from './flags.ts';
import type { SecretName, SecretsDocument } from './secrets.ts';
import { UsageError } from './usage-error.ts';

export const ONBOARD_OPTIONS = {
  merchant: { type: 'string' },
  name: { type: 'string' },
  region: { type: 'string' },
  'credential-name': { type: 'string' },
  kind: { type: 'string' },
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
} as const;

/** What shall be made, checked; the secrets are not in it. */
export interface OnboardPlan {
  url: string | undefined;
  merchant: {
    id: string;
    name: string;
    directAllowed: boolean;
    serviceDefaultsAllowed: boolean;
    regions: string[];
  };
  apiKey: { name: string; scopes?: string[]; expiresInDays: number };
  credential: { name: string; kind: CredentialKind; region: string } | undefined;
  secretsStdin: boolean;
  secretsFd: number | undefined;
  json: boolean;
}

/** @throws UsageError with every problem of the flags. */
export function planOf(flags: Flags): OnboardPlan {
  const problems: string[] = [];
  const must = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem);
  };
  const [id, name, region, url] = [
    text(flags['merchant']),
    text(flags['name']),
    text(flags['region']),
    text(flags['url']),
  ];
  const kind = (text(flags['kind']) ?? 'access-key') as CredentialKind;
  const withCredential = flags['no-credential'] !== true;
  const regions = words(flags['regions']) ?? [];
  const scopes = words(flags['scopes']);
  const days = Number(text(flags['expires-in-days']) ?? '90');
  const fd = text(flags['secrets-fd']);
  must(
    id !== undefined && MERCHANT_ID_PATTERN.test(id),
    '--merchant must be 2 to 63 characters of a-z, 0-9 and -, not beginning with -.',
  );
  must(name !== undefined && name.trim() !== '', '--name is missing: what people call the merchant.');
  must(
    !withCredential || (region !== undefined && isBedrockRegion(region)),
    '--region must be the region of the credential, such as us-east-1 (or give --no-credential).',
  );
  must(CREDENTIAL_KINDS.includes(kind), `--kind must be one of ${CREDENTIAL_KINDS.join(', ')}.`);
  must(
    regions.every(isBedrockRegion),
    '--regions must be regions where Bedrock has an endpoint, separated by commas.',
  );
  must(
    scopes?.every((scope) => (MERCHANT_SCOPES as readonly string[]).includes(scope)) ?? true,
    `--scopes must be some of ${MERCHANT_SCOPES.join(',')}.`,
  );
  must(
    Number.isInteger(days) && days >= 1 && days <= 365,
    '--expires-in-days must be a whole number from 1 to 365.',
  );
  must(
    url === undefined || isSafeUrl(url),
    '--url must be https:// (http:// only to this machine), without a path.',
  );
  must(
    fd === undefined || /^\d{1,4}$/.test(fd),
    '--secrets-fd must be the number of an open file descriptor.',
  );
  must(
    fd === undefined || flags['secrets-stdin'] !== true,
    '--secrets-stdin and --secrets-fd are two sources: choose one.',
  );
  if (problems.length > 0) throw new UsageError(problems);
  return {
    url,
    merchant: {
      id: id as string,
      name: name as string,
      directAllowed: flags['allow-direct'] === true,
      serviceDefaultsAllowed: flags['allow-service-defaults'] === true,
      regions,
    },
    apiKey: { name: text(flags['key-name']) ?? 'first key', expiresInDays: days, ...(scopes && { scopes }) },
    credential: withCredential
      ? { name: text(flags['credential-name']) ?? 'first credential', kind, region: region as string }
      : undefined,
    secretsStdin: flags['secrets-stdin'] === true,
    secretsFd: fd === undefined ? undefined : Number(fd),
    json: flags['json'] === true,
  };
}

/** The secrets a plan needs, in the order in which they are asked. */
export function secretsFor(plan: OnboardPlan): SecretName[] {
  const wanted: SecretName[] = plan.url === undefined ? [] : ['operatorToken'];
  if (plan.credential?.kind === 'access-key')
    wanted.push('awsAccessKeyId', 'awsSecretAccessKey', 'awsSessionToken');
  if (plan.credential?.kind === 'bedrock-api-key') wanted.push('bedrockApiKey');
  return wanted;
}

/** The body of POST /api/ops/merchants: the one place that says what onboarding takes. */
export function requestOf(plan: OnboardPlan, secrets: SecretsDocument): object {
  const { awsAccessKeyId, awsSecretAccessKey, awsSessionToken, bedrockApiKey } = secrets;
  const material =
    plan.credential?.kind === 'bedrock-api-key'
      ? { bedrockApiKey }
      : { awsAccessKeyId, awsSecretAccessKey, ...(awsSessionToken !== undefined && { awsSessionToken }) };
  return {
    ...plan.merchant,
    apiKey: plan.apiKey,
    ...(plan.credential && { credential: { ...plan.credential, ...material, makeDefault: true } }),
  };
}

function text(value: string | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function words(value: string | boolean | undefined): string[] | undefined {
  return text(value)
    ?.split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
}

function isSafeUrl(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, hostname, pathname, search, username } = new URL(url);
  const loopback = ['127.0.0.1', 'localhost', '[::1]'].includes(hostname);
  return (
    (protocol === 'https:' || (protocol === 'http:' && loopback)) &&
    pathname === '/' &&
    search === '' &&
    username === ''
  );
}
