import type { AwsError, Service } from './errors.ts';

export const STS_NAMESPACE = 'https://sts.amazonaws.com/doc/2011-06-15/';
export const IAM_NAMESPACE = 'https://iam.amazonaws.com/doc/2010-05-08/';

/** Tokens of one model run in four buckets that never overlap: `input` excludes cached tokens, as AWS counts them. */
export interface Usage {
  input: number;
  output: number;
  cacheRead: number;
  cacheWrite5m: number;
  cacheWrite1h: number;
}

interface AnswerFacts {
  status: number;
  headers: Readonly<Record<string, string>>;
  /** What AWS would bill for; absent when no model ran. */
  usage?: Usage;
  errorType?: string;
}

export interface UnaryAnswer extends AnswerFacts {
  kind: 'unary';
  body: Buffer;
}

export interface StreamAnswer extends AnswerFacts {
  kind: 'stream';
  /** Whole event-stream frames, in order. */
  frames: Iterable<Buffer>;
}

export type Answer = UnaryAnswer | StreamAnswer;

/** 200 with a JSON body, as the REST services of Bedrock answer. */
export function json(
  body: object,
  extra: { status?: number; headers?: Record<string, string>; usage?: Usage } = {},
): UnaryAnswer {
  return {
    kind: 'unary',
    status: extra.status ?? 200,
    headers: { 'content-type': 'application/json', ...extra.headers },
    body: Buffer.from(JSON.stringify(body)),
    ...(extra.usage && { usage: extra.usage }),
  };
}

/** 200 of the JSON 1.1 protocol (KMS, Secrets Manager). */
export function amzJson(body: object): UnaryAnswer {
  return { ...json(body), headers: { 'content-type': 'application/x-amz-json-1.1' } };
}

/** 200 of the Query protocol (STS, IAM). */
export function xml(text: string): UnaryAnswer {
  return { kind: 'unary', status: 200, headers: { 'content-type': 'text/xml' }, body: Buffer.from(text) };
}

export function escapeXml(text: string): string {
  return text.replace(/[<>&"']/g, (c) => `&#${String(c.charCodeAt(0))};`);
}

/** Puts an error into the wire form of the service that gives it. */
export function errorAnswer(service: Service, error: AwsError, requestId: string): UnaryAnswer {
  const { status = 400, headers = {} } = error.options;
  const answer = ERROR_FORMS[service](error, requestId);
  return { ...answer, status, headers: { ...answer.headers, ...headers }, errorType: error.type };
}

type ErrorForm = (error: AwsError, requestId: string) => UnaryAnswer;

/** REST-JSON: the type goes in a header, with the namespace it lives in. */
const restError: ErrorForm = (error) => {
  const namespace = error.options.namespace === 'coral' ? 'com.amazon.coral.service' : 'com.amazon.bedrock';
  const type = `${error.type}:http://internal.amazon.com/coral/${namespace}/`;
  return json(error.options.body ?? { message: error.message }, { headers: { 'x-amzn-errortype': type } });
};

const amzJsonError: ErrorForm = (error) =>
  amzJson({ __type: error.type, ...(error.message && { message: error.message }) });

const queryError =
  (namespace: string): ErrorForm =>
  (error, requestId) => {
    const fault = (error.options.status ?? 400) < 500 ? 'Sender' : 'Receiver';
    const content = `<Type>${fault}</Type><Code>${escapeXml(error.type)}</Code><Message>${escapeXml(error.message)}</Message>`;
    return xml(
      `<ErrorResponse xmlns="${namespace}"><Error>${content}</Error><RequestId>${requestId}</RequestId></ErrorResponse>`,
    );
  };

const s3Error: ErrorForm = (error, requestId) => ({
  ...xml(
    `<Error><Code>${escapeXml(error.type)}</Code><Message>${escapeXml(error.message)}</Message><RequestId>${requestId}</RequestId></Error>`,
  ),
  headers: { 'content-type': 'application/xml' },
});

const ERROR_FORMS: Record<Service, ErrorForm> = {
  'bedrock-runtime': restError,
  bedrock: restError,
  kms: amzJsonError,
  secretsmanager: amzJsonError,
  sts: queryError(STS_NAMESPACE),
  iam: queryError(IAM_NAMESPACE),
  logs: amzJsonError,
  s3: s3Error,
};
