import { z } from 'zod';
import type { AccessKey } from './credential.ts';
import { ServiceError } from './errors.ts';
import type { CredentialId } from './ids.ts';
import { CREDENTIAL_ID_PATTERN } from './ids.ts';
import { Secret } from './secret.ts';

/** Which keys a request wants to be signed with. Closed: credentials/resolve.ts has one branch for each, and no other way in. */
export type CredentialChoice =
  | { kind: 'direct'; accessKey: AccessKey; region: string }
  | { kind: 'stored'; credentialId: CredentialId }
  | { kind: 'session'; session: Secret }
  | { kind: 'service-default' }
  /** Nothing was named: the merchant's default stored credential, if one is set. */
  | { kind: 'merchant-default' };

const PRINTABLE = /^[\x21-\x7e]+$/;

/**
 * The shape of each field. AWS publishes no grammar for secrets: 40 characters of base64 is what IAM and STS have always given out.
 * Also used by the routes that store a credential.
 */
export const CREDENTIAL_FIELDS = {
  awsAccessKeyId: z
    .string('must be text')
    .regex(/^(AKIA|ASIA)[A-Z0-9]{16}$/, 'must be 20 characters that begin with AKIA or ASIA'),
  awsSecretAccessKey: z
    .string('must be text')
    .regex(/^[A-Za-z0-9/+=]{40}$/, 'must be the 40 characters that AWS showed'),
  awsSessionToken: z
    .string('must be text')
    .min(16, 'is too short')
    .max(4096, 'must be at most 4096 characters')
    .regex(PRINTABLE, 'must hold no spaces'),
  awsRegion: z
    .string('must be text')
    .regex(/^[a-z]{2,3}(-[a-z]{3,12}){1,2}-\d$/, 'must be a region such as us-east-1'),
  credentialId: z
    .string('must be text')
    .regex(CREDENTIAL_ID_PATTERN, 'must be cred_ and 22 letters or digits, as GET /credentials lists it'),
  session: z
    .string('must be text')
    .min(1, 'is empty')
    .max(8192, 'must be at most 8192 characters')
    .regex(PRINTABLE, 'must hold no spaces'),
  useServiceDefaults: z.literal(true, 'must be true; leave it out to choose something else'),
} as const;

type Field = keyof typeof CREDENTIAL_FIELDS;
const FIELDS = Object.keys(CREDENTIAL_FIELDS) as Field[];
const DIRECT_FIELDS = ['awsAccessKeyId', 'awsSecretAccessKey', 'awsSessionToken', 'awsRegion'] as const;

/** The same fields as headers, for routes whose body belongs to AWS. */
const HEADERS = {
  awsAccessKeyId: 'x-bedrock-aws-access-key-id',
  awsSecretAccessKey: 'x-bedrock-aws-secret-access-key',
  awsSessionToken: 'x-bedrock-aws-session-token',
  awsRegion: 'x-bedrock-aws-region',
  credentialId: 'x-bedrock-credential-id',
  session: 'x-bedrock-session',
  useServiceDefaults: 'x-bedrock-use-service-defaults',
} as const satisfies Record<Field, string>;

/** Other headers of ours. Any further `x-bedrock-…` is refused: a misspelt credential header must not end as "no choice". */
const OTHER_BEDROCK_HEADERS: ReadonlySet<string> = new Set(['x-bedrock-region', 'x-bedrock-end-user']);

type Given = Partial<Record<Field, unknown>>;

/**
 * Reads the choice out of one of our JSON bodies.
 * @returns the choice, and the body without its fields: what the route's own schema validates.
 * @throws ServiceError credential.choice_invalid, naming fields and never values.
 */
export function choiceFromBody(body: Readonly<Record<string, unknown>>): {
  choice: CredentialChoice;
  rest: Record<string, unknown>;
} {
  const given: Given = {};
  const rest: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(body)) {
    if (isField(name)) given[name] = value;
    else if (isMisspelt(name)) throw invalid([`${shown(name)} is not a credential field`], FIELDS);
    else Object.defineProperty(rest, name, { value, enumerable: true, configurable: true, writable: true });
  }
  return { choice: decide(given, (field) => field), rest };
}

/**
 * Reads the choice out of the `x-bedrock-…` headers of an AWS-shaped route.
 * @param headers names in any case; a list means that the header came more than once, which is refused.
 * @throws ServiceError credential.choice_invalid, naming headers and never values.
 */
export function choiceFromHeaders(
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
): CredentialChoice {
  const given: Given = {};
  for (const [anyCase, value] of Object.entries(headers)) {
    const name = anyCase.toLowerCase();
    if (!name.startsWith('x-bedrock-') || value === undefined || OTHER_BEDROCK_HEADERS.has(name)) continue;
    const field = FIELDS.find((known) => HEADERS[known] === name);
    if (field === undefined)
      throw invalid([`${shown(name)} is not a header of this service`], Object.values(HEADERS));
    given[field] = field === 'useServiceDefaults' && value === 'true' ? true : value;
  }
  return decide(given, (field) => HEADERS[field]);
}

function decide(given: Given, nameOf: (field: Field) => string): CredentialChoice {
  const present = FIELDS.filter((field) => field in given);
  const sources = new Set(present.map((field) => (isDirect(field) ? 'direct' : field)));
  if (sources.size > 1) {
    throw invalid(
      [`${list(present.map(nameOf))} name more than one credential: send exactly one choice`],
      present.map(nameOf),
    );
  }
  const problems = present.flatMap((field) => {
    const checked = CREDENTIAL_FIELDS[field].safeParse(given[field]);
    return checked.success ? [] : [`${nameOf(field)} ${problemOf(checked.error)}`];
  });
  if (sources.has('direct')) problems.push(...incomplete(given, nameOf));
  if (problems.length > 0) throw invalid(problems, present.map(nameOf));
  return build(given);
}

/** Only for values that passed `decide`. */
function build(given: Given): CredentialChoice {
  const valid = given as Partial<Record<Field, string>>;
  if (valid.credentialId !== undefined)
    return { kind: 'stored', credentialId: valid.credentialId as CredentialId };
  if (valid.session !== undefined) return { kind: 'session', session: new Secret(valid.session) };
  if (valid.useServiceDefaults !== undefined) return { kind: 'service-default' };
  const { awsAccessKeyId, awsSecretAccessKey, awsSessionToken, awsRegion } = valid;
  if (awsAccessKeyId === undefined || awsSecretAccessKey === undefined || awsRegion === undefined)
    return { kind: 'merchant-default' };
  const accessKey: AccessKey = {
    kind: 'access-key',
    accessKeyId: awsAccessKeyId,
    secretAccessKey: new Secret(awsSecretAccessKey),
    ...(awsSessionToken === undefined ? {} : { sessionToken: new Secret(awsSessionToken) }),
  };
  return { kind: 'direct', accessKey, region: awsRegion };
}

/** What a set of direct fields lacks, or has too much of. Temporary keys (ASIA) come with a token, long-lived ones (AKIA) without. */
function incomplete(given: Given, nameOf: (field: Field) => string): string[] {
  const problems = DIRECT_FIELDS.filter((field) => field !== 'awsSessionToken' && !(field in given)).map(
    (field) => `${nameOf(field)} is missing`,
  );
  const keyId = given.awsAccessKeyId;
  const hasToken = 'awsSessionToken' in given;
  if (typeof keyId === 'string' && keyId.startsWith('ASIA') && !hasToken)
    problems.push(`${nameOf('awsSessionToken')} is missing: a key that begins with ASIA is temporary`);
  if (typeof keyId === 'string' && keyId.startsWith('AKIA') && hasToken)
    problems.push(
      `${nameOf('awsSessionToken')} does not belong to a key that begins with AKIA: leave it out`,
    );
  return problems;
}

function invalid(problems: readonly string[], names: readonly string[]): ServiceError {
  const known = names.length === 0 ? '' : ` (${list(names)})`;
  return new ServiceError(
    'credential.choice_invalid',
    `The credential choice of this request is not valid${known}: ${problems.join('; ')}.`,
    { problems },
  );
}

function problemOf(error: z.ZodError): string {
  return error.issues[0]?.message ?? 'is not valid';
}

function isField(name: string): name is Field {
  return Object.hasOwn(CREDENTIAL_FIELDS, name);
}

function isDirect(field: Field): boolean {
  return (DIRECT_FIELDS as readonly Field[]).includes(field);
}

/** `aws_access_key_id`, `CredentialID`, `awsSecret`: meant for us, so not to be overlooked. */
function isMisspelt(name: string): boolean {
  const plain = name.toLowerCase().replaceAll(/[-_]/g, '');
  return plain.startsWith('aws') || FIELDS.some((field) => field.toLowerCase() === plain);
}

/** A name from outside, safe to print: somebody may have sent the secret as the name. */
function shown(name: string): string {
  return /^[A-Za-z_-]{1,40}$/.test(name) ? name : 'one of the names';
}

function list(names: readonly string[]): string {
  return names.join(', ');
}
