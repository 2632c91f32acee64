import { createHash } from 'node:crypto';
import { AwsError } from '../wire/errors.ts';
import type { Call, World } from '../call.ts';
import type { Answer } from '../wire/answer.ts';

/** A bucket with Object Lock that takes objects. */
export interface LockedBucket {
  bucket: string;
  accountId: string;
  region: string;
}

/** One version of an object; locked ones can be neither replaced nor removed, so there is no way to do either. */
export interface LockedObject {
  key: string;
  mode: string;
  retainUntil: string;
  body: string;
}

export class LockedBuckets {
  readonly #buckets = new Map<string, LockedBucket & { objects: LockedObject[] }>();

  add(bucket: LockedBucket): void {
    this.#buckets.set(bucket.bucket, { ...bucket, objects: [] });
  }

  find(name: string) {
    return this.#buckets.get(name);
  }
}

/** PutObject under a lock. Without a checksum of its body S3 refuses one, and so does this; with `If-None-Match: *` nothing may be there. */
export function putObject(call: Call, { buckets }: World): Answer {
  const { headers, body } = call.request;
  const { bucket, key } = placeOf(call, buckets);
  const checksum = createHash('sha256').update(body).digest('base64');
  const mode = headers['x-amz-object-lock-mode'];
  const retainUntil = headers['x-amz-object-lock-retain-until-date'];
  if (mode === undefined || retainUntil === undefined || !(Date.parse(retainUntil) > Date.now()))
    throw new AwsError('InvalidRequest', 'Object Lock needs a mode and a date in the future', {
      status: 400,
    });
  if (headers['x-amz-checksum-sha256'] !== checksum)
    throw new AwsError('InvalidRequest', 'Content-MD5 or x-amz-checksum- is required', { status: 400 });
  const condition = headers['if-none-match'];
  if (condition !== undefined && condition !== '*')
    throw new AwsError(
      'NotImplemented',
      'A header you provided implies functionality that is not implemented',
      {
        status: 501,
      },
    );
  if (condition === '*' && bucket.objects.some((one) => one.key === key))
    throw new AwsError(
      'PreconditionFailed',
      'At least one of the pre-conditions you specified did not hold',
      {
        status: 412,
      },
    );
  bucket.objects.push({ key, mode, retainUntil, body: body.toString('utf8') });
  return {
    kind: 'unary',
    status: 200,
    headers: {
      'x-amz-checksum-sha256': checksum,
      'x-amz-version-id': `stand-in-${String(bucket.objects.length)}`,
    },
    body: Buffer.alloc(0),
  };
}

/** GetObject: the newest version. */
export function getLockedObject(call: Call, { buckets }: World): Answer {
  const { bucket, key } = placeOf(call, buckets);
  const object = bucket.objects.findLast((one) => one.key === key);
  if (object === undefined)
    throw new AwsError('NoSuchKey', 'The specified key does not exist.', { status: 404 });
  return {
    kind: 'unary',
    status: 200,
    headers: { 'content-type': 'application/json' },
    body: Buffer.from(object.body),
  };
}

function placeOf({ request, signer }: Call, buckets: LockedBuckets) {
  const [name = '', ...rest] = decodeURIComponent(request.path).slice(1).split('/');
  const bucket = buckets.find(name);
  if (bucket === undefined)
    throw new AwsError('NoSuchBucket', 'The specified bucket does not exist', { status: 404 });
  const owner = request.headers['x-amz-expected-bucket-owner'] ?? bucket.accountId;
  if (owner !== bucket.accountId || signer.region !== bucket.region)
    throw new AwsError('AccessDenied', 'Access Denied', { status: 403 });
  return { bucket, key: rest.join('/') };
}
