import { randomBytes } from 'node:crypto';
import { STS_NAMESPACE, escapeXml, xml } from '../wire/answer.ts';
import { AwsError } from '../wire/errors.ts';
import { accessDenied } from '../identity/authorize.ts';
import { parsePolicy } from '../identity/session-policy.ts';
import type { Role } from './roles.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';
import type { Signer } from '../identity/key-ring.ts';

/** Limits of AssumeRole. */
const DURATION_SECONDS = { least: 900, usual: 3600, chained: 3600 } as const;
const POLICY_LENGTH_MAX = 2048;
const SESSION_NAME = /^[\w+=,.@-]{2,64}$/;
const EXTERNAL_ID = /^[\w+=,.@:/-]{2,1224}$/;

function getCallerIdentity({ signer, requestId }: Call): Answer {
  const fields = { Arn: signer.arn, UserId: signer.accessKeyId ?? 'unknown', Account: signer.accountId };
  return result('GetCallerIdentity', members(fields), requestId);
}

/** Gives out temporary credentials that the stand-in knows from then on. A session policy narrows them. */
function assumeRole({ request, signer, requestId }: Call, { roles, keys }: World): Answer {
  const form = new URLSearchParams(request.body.toString('utf8'));
  const roleArn = form.get('RoleArn') ?? '';
  const sessionName = form.get('RoleSessionName') ?? '';
  const seconds = Number(form.get('DurationSeconds') ?? DURATION_SECONDS.usual);
  checkForm(form, sessionName);
  const role = roles.find(roleArn);
  if (!role || !trusts(role, signer, form)) {
    throw accessDenied(
      'sts',
      `User: ${signer.arn} is not authorized to perform: sts:AssumeRole on resource: ${roleArn}`,
    );
  }
  checkDuration(seconds, role, signer);
  const key = sessionKey(role, sessionName, seconds);
  const policy = form.get('Policy');
  keys.addAccessKey(policy === null ? key : { ...key, sessionPolicy: parsePolicy(policy) });
  const credentials = members({
    AccessKeyId: key.accessKeyId,
    SecretAccessKey: key.secretAccessKey,
    SessionToken: key.sessionToken,
    Expiration: new Date(key.expiresAtMs).toISOString(),
  });
  const user = members({ Arn: key.arn, AssumedRoleId: `AROASTANDIN:${sessionName}` });
  const content = `<Credentials>${credentials}</Credentials><AssumedRoleUser>${user}</AssumedRoleUser>`;
  return result('AssumeRole', content, requestId);
}

function sessionKey(role: Role, sessionName: string, seconds: number) {
  const [, accountId = '', roleName = ''] =
    /^arn:aws:iam::(\d{12}):role\/(?:.*\/)?([^/]+)$/.exec(role.arn) ?? [];
  return {
    accessKeyId: `ASIA${randomBytes(8).toString('hex').toUpperCase()}`,
    secretAccessKey: randomBytes(30).toString('base64'),
    sessionToken: randomBytes(96).toString('base64'),
    accountId,
    arn: `arn:aws:sts::${accountId}:assumed-role/${roleName}/${sessionName}`,
    expiresAtMs: Date.now() + seconds * 1000,
    deny: role.deny ?? [],
    ...role.sessionKeys,
  };
}

function checkForm(form: URLSearchParams, sessionName: string): void {
  const externalId = form.get('ExternalId');
  const policy = form.get('Policy');
  if (!SESSION_NAME.test(sessionName))
    throw invalid("Value at 'roleSessionName' failed to satisfy constraint");
  if (externalId !== null && !EXTERNAL_ID.test(externalId))
    throw invalid("Value at 'externalId' failed to satisfy constraint");
  if (policy !== null && policy.length > POLICY_LENGTH_MAX)
    throw invalid(
      "Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048",
    );
}

function checkDuration(seconds: number, role: Role, signer: Signer): void {
  if (signer.temporary && seconds > DURATION_SECONDS.chained) {
    throw invalid(
      'The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining',
    );
  }
  if (!(seconds >= DURATION_SECONDS.least))
    throw invalid(
      "Value at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900",
    );
  if (seconds > (role.maxSessionSeconds ?? DURATION_SECONDS.usual))
    throw invalid('The requested DurationSeconds exceeds the MaxSessionDuration set for this role.');
}

function trusts(role: Role, signer: Signer, form: URLSearchParams): boolean {
  const externalId = form.get('ExternalId');
  const tags = tagsOf(form);
  if (role.taggable === false && Object.keys(tags).length > 0) return false;
  if (role.admits) return role.admits({ externalId, tags });
  const admitted = role.trusts?.some((who) => who === signer.arn || who === signer.accountId) ?? true;
  return admitted && (role.externalId === undefined || role.externalId === externalId);
}

/** `Tags.member.1.Key=..&Tags.member.1.Value=..` */
function tagsOf(form: URLSearchParams): Record<string, string> {
  const tags: Record<string, string> = {};
  for (let index = 1; ; index += 1) {
    const key = form.get(`Tags.member.${String(index)}.Key`);
    if (key === null) return tags;
    tags[key] = form.get(`Tags.member.${String(index)}.Value`) ?? '';
  }
}

function invalid(message: string): AwsError {
  return new AwsError('ValidationError', message, { status: 400 });
}

function members(fields: Readonly<Record<string, string>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `<${name}>${escapeXml(value)}</${name}>`)
    .join('');
}

function result(operation: string, content: string, requestId: string): Answer {
  return xml(
    `<${operation}Response xmlns="${STS_NAMESPACE}"><${operation}Result>${content}</${operation}Result>` +
      `<ResponseMetadata><RequestId>${requestId}</RequestId></ResponseMetadata></${operation}Response>`,
  );
}

export const STS_OPERATIONS: Readonly<Record<string, (call: Call, world: World) => Answer>> = {
  GetCallerIdentity: getCallerIdentity,
  AssumeRole: assumeRole,
};
