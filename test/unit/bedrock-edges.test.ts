import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { chatEventOfFrame, chatReplyOf, converseBodyOf } from '../../src/bedrock/chat.ts';
import { classifyReply, serviceErrorOf } from '../../src/bedrock/aws-errors.ts';
import { encodeFrame, parseFrame } from '../../src/bedrock/event-stream.ts';
import { requestHeadersForAws, responseHeadersFromAws } from '../../src/bedrock/headers.ts';

describe('request headers', () => {
  const ALLOWED = [
    'content-type',
    'accept',
    'x-amzn-bedrock-accept',
    'x-amzn-bedrock-trace',
    'x-amzn-bedrock-guardrailidentifier',
    'x-amzn-bedrock-guardrailversion',
    'x-amzn-bedrock-performanceconfig-latency',
    'x-amzn-bedrock-service-tier',
  ];

  test("what real clients send goes on, and nothing of ours or of the connection's", () => {
    const sent = {
      host: 'x',
      connection: 'keep-alive',
      authorization: 'Bearer mbk_x',
      cookie: 'a=b',
      'x-api-key': 'mbk_x',
      'x-forwarded-for': '10.0.0.1',
      'transfer-encoding': 'chunked',
      'x-bedrock-credential-id': 'cred_x',
      'x-bedrock-aws-secret-access-key': 'x',
      'x-amz-security-token': 'x',
      'x-amzn-bedrock-request-metadata': '{"forged":"x"}',
      'user-agent': 'x',
      'content-type': 'application/octet-stream',
      'x-amzn-bedrock-trace': 'ENABLED',
      'x-amzn-bedrock-service-tier': 'flex',
    };
    expect(requestHeadersForAws(sent, 'invoke')).toEqual({
      'content-type': 'application/octet-stream',
      'x-amzn-bedrock-trace': 'ENABLED',
      'x-amzn-bedrock-service-tier': 'flex',
    });
  });

  test('a body without a type is JSON, and a wish for server-sent events is ours to fulfil', () => {
    expect(requestHeadersForAws({ accept: 'text/event-stream' }, 'converse-stream')).toEqual({
      'content-type': 'application/json',
    });
    expect(requestHeadersForAws({ accept: '*/*' }, 'invoke')).toEqual({
      'content-type': 'application/json',
      accept: '*/*',
    });
  });

  test('nothing outside the list ever passes, with any value', () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.oneof(
            fc.string(),
            fc.constantFrom(
              ...ALLOWED,
              'authorization',
              'host',
              'x-amzn-bedrock-request-metadata',
              'constructor',
              '__proto__',
            ),
          ),
          fc.oneof(fc.string(), fc.array(fc.string())),
        ),
        (headers) => {
          try {
            for (const [name, value] of Object.entries(requestHeadersForAws(headers, 'invoke'))) {
              expect(ALLOWED).toContain(name);
              expect(value).toMatch(/^[\x20-\x7e]+$/);
            }
          } catch (error) {
            expect(error).toMatchObject({ code: 'request.invalid' });
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

test('response headers: what describes the answer, and nothing that describes AWS', () => {
  const answered = {
    'content-type': 'application/json',
    'x-amzn-requestid': 'r',
    'x-amzn-errortype': 'e',
    'x-amzn-bedrock-input-token-count': '3',
    'retry-after': '2',
    'set-cookie': 'a=b',
    server: 'x',
    connection: 'close',
    'content-length': '9',
    'transfer-encoding': 'chunked',
    'x-amz-id-2': 'x',
  };
  expect(Object.keys(responseHeadersFromAws(answered))).toEqual([
    'content-type',
    'x-amzn-requestid',
    'x-amzn-errortype',
    'x-amzn-bedrock-input-token-count',
    'retry-after',
  ]);
});

describe('errors of AWS', () => {
  const reply = (status: number, type: string | undefined, json: object = {}) => ({
    status,
    headers:
      type === undefined
        ? {}
        : { 'x-amzn-errortype': `${type}:http://internal.amazon.com/coral/com.amazon.bedrock/` },
    body: Buffer.from(JSON.stringify(json)),
  });

  test.each<[number, string, 'refused' | 'unknown', boolean]>([
    [400, 'ValidationException', 'refused', false],
    [403, 'AccessDeniedException', 'refused', false],
    [404, 'ResourceNotFoundException', 'refused', false],
    [408, 'ModelTimeoutException', 'unknown', false],
    [424, 'ModelErrorException', 'unknown', false],
    [429, 'ThrottlingException', 'refused', false],
    [429, 'ModelNotReadyException', 'refused', false],
    [500, 'InternalServerException', 'unknown', false],
    [503, 'ServiceUnavailableException', 'refused', false],
    [403, 'UnrecognizedClientException', 'refused', true],
    [403, 'InvalidSignatureException', 'refused', true],
    [403, 'ExpiredTokenException', 'refused', true],
    [400, 'SomethingNewException', 'unknown', false],
  ])('%s %s', (status, type, execution, credentialBroken) => {
    expect(classifyReply(reply(status, type, { message: 'm' }))).toMatchObject({
      type,
      message: 'm',
      execution,
      credentialBroken,
    });
  });

  test('a type in the body, a bad API key, and an answer that is no JSON', () => {
    expect(classifyReply(reply(400, undefined, { __type: 'com.amazon#ValidationException' }))).toMatchObject({
      type: 'ValidationException',
    });
    expect(
      classifyReply(
        reply(403, undefined, { Message: 'Authentication failed: Please make sure your API Key is valid.' }),
      ),
    ).toMatchObject({ credentialBroken: true });
    expect(classifyReply({ status: 502, headers: {}, body: Buffer.from('<html>') })).toMatchObject({
      type: 'Http502',
      execution: 'unknown',
    });
  });

  test('on our routes they say what to do', () => {
    const of = (status: number, type: string) =>
      serviceErrorOf(classifyReply(reply(status, type, { message: 'm' })), {
        operation: 'converse-stream',
        modelId: 'amazon.nova-micro-v1:0',
        region: 'us-east-1',
        source: 'stored',
      });
    expect(of(403, 'AccessDeniedException')).toMatchObject({
      code: 'upstream.access_denied',
      detail: expect.stringContaining('bedrock:InvokeModelWithResponseStream'),
    });
    expect(of(429, 'ThrottlingException')).toMatchObject({
      code: 'upstream.throttled',
      options: { retryAfterSeconds: 1 },
    });
    expect(of(403, 'ExpiredTokenException')).toMatchObject({ code: 'credential.refused_by_aws' });
  });
});

describe('chat', () => {
  test('becomes Converse and comes back, without an invented number', () => {
    expect(converseBodyOf({ prompt: 'hi', system: 's', maxTokens: 5, temperature: 0 })).toEqual({
      messages: [{ role: 'user', content: [{ text: 'hi' }] }],
      system: [{ text: 's' }],
      inferenceConfig: { maxTokens: 5, temperature: 0 },
    });
    const json = {
      output: { message: { content: [{ text: 'a' }, { reasoningContent: {} }, { text: 'b' }] } },
      stopReason: 'end_turn',
    };
    expect(chatReplyOf(Buffer.from(JSON.stringify(json)))).toEqual({
      text: 'ab',
      stopReason: 'end_turn',
      usage: null,
    });
    expect(chatReplyOf(Buffer.from('nonsense'))).toEqual({ text: '', stopReason: null, usage: null });
  });

  test('stream events', () => {
    const frame = (type: string, json: object) =>
      parseFrame(
        encodeFrame({ ':event-type': type, ':message-type': 'event' }, Buffer.from(JSON.stringify(json))),
      );
    expect(chatEventOfFrame(frame('contentBlockDelta', { delta: { text: 'x' } }))).toEqual({
      event: 'delta',
      data: { text: 'x' },
    });
    expect(chatEventOfFrame(frame('messageStop', { stopReason: 'max_tokens' }))).toEqual({
      event: 'stop',
      data: { stopReason: 'max_tokens' },
    });
    expect(chatEventOfFrame(frame('metadata', {}))).toEqual({ event: 'usage', data: { usage: null } });
    expect(chatEventOfFrame(frame('messageStart', {}))).toBeUndefined();
  });
});
