import { gzipSync } from 'node:zlib';
import { escapeXml } from '../wire/answer.ts';
import { getLockedObject } from '../s3/locked-buckets.ts';
import { AwsError } from '../wire/errors.ts';
import type { Call, World } from '../call.ts';
import type { Answer, UnaryAnswer } from '../wire/answer.ts';
import type { InvocationLogging, LogBook } from './records.ts';

/** Small, so that batches hold several records and listings several pages. */
const RECORDS_A_BATCH = 3;
const KEYS_A_PAGE = 2;

interface Batch {
  key: string;
  at: string;
  lines: string[];
}

/** ListObjectsV2 of the bucket that the path names. */
export function listObjects(call: Call, { logs }: World): Answer {
  const query = new URLSearchParams(call.request.query);
  const prefix = query.get('prefix') ?? '';
  const keys = batchesOf(logs, ownBucket(call, logs)).filter(({ key }) => key.startsWith(prefix));
  const from = Number(query.get('continuation-token') ?? '0');
  const page = keys.slice(from, from + KEYS_A_PAGE);
  const more = from + KEYS_A_PAGE < keys.length;
  const contents = page.map(
    ({ key, at }) =>
      `<Contents><Key>${escapeXml(key)}</Key><LastModified>${at}</LastModified><Size>1</Size></Contents>`,
  );
  return xml(
    `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>${String(more)}</IsTruncated>` +
      `${more ? `<NextContinuationToken>${String(from + KEYS_A_PAGE)}</NextContinuationToken>` : ''}${contents.join('')}</ListBucketResult>`,
  );
}

/** GetObject: a gzipped batch, or what is under a lock. */
export function getObject(call: Call, world: World): Answer {
  const [bucket, key] = bucketAndKey(call);
  if (world.buckets.find(bucket) !== undefined) return getLockedObject(call, world);
  const { logs } = world;
  const logging = ownBucket(call, logs);
  const batch = batchesOf(logs, logging).find((one) => one.key === key);
  if (batch === undefined)
    throw new AwsError('NoSuchKey', 'The specified key does not exist.', { status: 404 });
  return {
    kind: 'unary',
    status: 200,
    headers: { 'content-type': 'application/x-gzip' },
    body: gzipSync(batch.lines.join('\n')),
  };
}

function ownBucket(call: Call, logs: LogBook): InvocationLogging {
  const [bucket] = bucketAndKey(call);
  const logging = logs.bucket(bucket);
  if (logging === undefined)
    throw new AwsError('NoSuchBucket', 'The specified bucket does not exist', { status: 404 });
  const owner = call.request.headers['x-amz-expected-bucket-owner'] ?? logging.accountId;
  if (logging.accountId !== call.signer.accountId || owner !== logging.accountId)
    throw new AwsError('AccessDenied', 'Access Denied', { status: 403 });
  return logging;
}

function bucketAndKey({ request }: Call): [bucket: string, key: string] {
  const [bucket = '', ...key] = decodeURIComponent(request.path).slice(1).split('/');
  return [bucket, key.join('/')];
}

/** As Bedrock writes them: a folder for each hour; the check of its permission, and a folder of large bodies, beside the records. */
function batchesOf(logs: LogBook, logging: InvocationLogging): Batch[] {
  const { accountId, region, prefix } = logging;
  const home = `${prefix === undefined ? '' : `${prefix}/`}AWSLogs/${accountId}/BedrockModelInvocationLogs/`;
  const batches: Batch[] = [];
  for (const { at, requestId, json } of logs.records(logging)) {
    const folder = `${home}${region}/${at.slice(0, 13).replaceAll(/[-T]/g, '/')}/`;
    const last = batches.at(-1);
    if (last !== undefined && last.lines.length < RECORDS_A_BATCH && last.key.startsWith(folder)) {
      last.lines.push(json);
      last.at = at;
      continue;
    }
    const data = `${folder}data/${requestId}_input.json.gz`;
    batches.push({ key: data, at, lines: ['this is a body, not a record'] });
    const name = `${at.replaceAll(/[-:.]/g, '')}_${requestId.slice(0, 16)}.json.gz`;
    batches.push({ key: `${folder}${name}`, at, lines: [json] });
  }
  return [
    { key: `${home}amazon-bedrock-logs-permission-check`, at: new Date(0).toISOString(), lines: [] },
    ...batches,
  ];
}

function xml(text: string): UnaryAnswer {
  return {
    kind: 'unary',
    status: 200,
    headers: { 'content-type': 'application/xml' },
    body: Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n${text}`),
  };
}
