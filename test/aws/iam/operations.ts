import { randomBytes } from 'node:crypto';
import { IAM_NAMESPACE, escapeXml, xml } from '../wire/answer.ts';
import { AwsError } from '../wire/errors.ts';
import { principalArn } from '../identity/key-ring.ts';
import type { AccessKey } from '../identity/key-ring.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

/** Of one user: AWS's quota, which cannot be raised. */
const KEYS_MAX = 2;

/** Knows no user but the caller's own: without UserName, IAM takes the user from the signature. */
function createAccessKey({ signer, requestId, request }: Call, { keys, newKeyDelayMs }: World): Answer {
  const userName = ownUser(signer.arn, request.body);
  if (ownKeys(signer.arn, keys.all()).length >= KEYS_MAX)
    throw new AwsError('LimitExceeded', `Cannot exceed quota for AccessKeysPerUser: ${String(KEYS_MAX)}`, {
      status: 409,
    });
  const now = Date.now();
  const key = {
    accessKeyId: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`,
    secretAccessKey: randomBytes(30).toString('base64'),
    accountId: signer.accountId,
    arn: signer.arn,
    createdAtMs: now,
    validFromMs: now + newKeyDelayMs.value,
    deny: signer.deny,
  };
  keys.addAccessKey(key);
  const fields = { UserName: userName, AccessKeyId: key.accessKeyId, Status: 'Active' };
  const shown = { ...fields, SecretAccessKey: key.secretAccessKey, CreateDate: iso(now) };
  return result('CreateAccessKey', `<AccessKey>${members(shown)}</AccessKey>`, requestId);
}

function listAccessKeys({ signer, requestId, request }: Call, { keys }: World): Answer {
  const userName = ownUser(signer.arn, request.body);
  const listed = ownKeys(signer.arn, keys.all()).map((key) => {
    const fields = { UserName: userName, AccessKeyId: key.accessKeyId, Status: statusOf(key) };
    return `<member>${members({ ...fields, CreateDate: iso(key.createdAtMs ?? 0) })}</member>`;
  });
  const content = `<IsTruncated>false</IsTruncated><AccessKeyMetadata>${listed.join('')}</AccessKeyMetadata>`;
  return result('ListAccessKeys', content, requestId);
}

function updateAccessKey({ signer, requestId, request }: Call, { keys }: World): Answer {
  const form = new URLSearchParams(request.body.toString('utf8'));
  const key = ownKey(signer.arn, form, keys.all());
  const status = form.get('Status');
  if (status !== 'Active' && status !== 'Inactive')
    throw new AwsError('ValidationError', "Value at 'status' failed to satisfy constraint", { status: 400 });
  keys.addAccessKey({ ...key, state: status === 'Active' ? 'active' : 'deactivated' });
  return result('UpdateAccessKey', undefined, requestId);
}

function deleteAccessKey({ signer, requestId, request }: Call, { keys }: World): Answer {
  const key = ownKey(signer.arn, new URLSearchParams(request.body.toString('utf8')), keys.all());
  keys.removeAccessKey(key.accessKeyId);
  return result('DeleteAccessKey', undefined, requestId);
}

function ownUser(arn: string, body: Buffer): string {
  const [, name] = /^arn:aws:iam::\d{12}:user\/(?:.*\/)?([^/]+)$/.exec(arn) ?? [];
  if (name === undefined)
    throw new AwsError('ValidationError', 'Must specify userName when calling with non-User credentials', {
      status: 400,
    });
  const asked = new URLSearchParams(body.toString('utf8')).get('UserName');
  if (asked !== null && asked !== name)
    throw new AwsError('NoSuchEntity', `The user with name ${asked} cannot be found.`, { status: 404 });
  return name;
}

function ownKeys(arn: string, keys: readonly AccessKey[]): AccessKey[] {
  return keys.filter((key) => key.sessionToken === undefined && principalArn(key) === arn);
}

function ownKey(arn: string, form: URLSearchParams, keys: readonly AccessKey[]): AccessKey {
  const id = form.get('AccessKeyId') ?? '';
  const key = ownKeys(arn, keys).find(({ accessKeyId }) => accessKeyId === id);
  if (key) return key;
  throw new AwsError('NoSuchEntity', `The Access Key with id ${id} cannot be found.`, { status: 404 });
}

function statusOf({ state }: AccessKey): string {
  return state === 'deactivated' ? 'Inactive' : 'Active';
}

function iso(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+/, '');
}

function members(fields: Readonly<Record<string, string>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `<${name}>${escapeXml(value)}</${name}>`)
    .join('');
}

function result(operation: string, content: string | undefined, requestId: string): Answer {
  const shown = content === undefined ? '' : `<${operation}Result>${content}</${operation}Result>`;
  return xml(
    `<${operation}Response xmlns="${IAM_NAMESPACE}">${shown}` +
      `<ResponseMetadata><RequestId>${requestId}</RequestId></ResponseMetadata></${operation}Response>`,
  );
}

export const IAM_OPERATIONS: Readonly<Record<string, (call: Call, world: World) => Answer>> = {
  CreateAccessKey: createAccessKey,
  ListAccessKeys: listAccessKeys,
  UpdateAccessKey: updateAccessKey,
  DeleteAccessKey: deleteAccessKey,
};
