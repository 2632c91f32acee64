import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from '@jest/globals';
import { ERRORS } from '../../src/domain/error-catalogue.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { ErrorCode, ErrorRow } from '../../src/domain/error-catalogue.ts';
import { problemOf, sendAwsError, sendProblem } from '../../src/http/problem.ts';

const CODES = Object.keys(ERRORS) as ErrorCode[];

async function answerOf(send: (res: http.ServerResponse) => void, method = 'GET'): Promise<Response> {
  const server = http
    .createServer((_req, res) => {
      send(res);
    })
    .listen(0);
  await once(server, 'listening');
  try {
    return await fetch(`http://127.0.0.1:${String((server.address() as AddressInfo).port)}`, { method });
  } finally {
    server.close();
  }
}

test.each(CODES)('%s has a problem document and an AWS answer', async (code) => {
  const error = new ServiceError(code, 'What is wrong.', { cause: new Error('private') });
  const problem = await answerOf((res) => {
    sendProblem(res, error, 'req-1');
  });
  expect(problem.status).toBe(ERRORS[code].status);
  expect(problem.headers.get('content-type')).toBe('application/problem+json');
  expect(problem.headers.get('cache-control')).toBe('no-store');
  expect(problem.headers.get('x-request-id')).toBe('req-1');
  expect(await problem.json()).toEqual({
    type: `https://merchant-bedrock.dev/errors/${code}`,
    title: ERRORS[code].title,
    status: ERRORS[code].status,
    detail: 'What is wrong.',
    code,
    requestId: 'req-1',
  });
  const aws = await answerOf((res) => {
    sendAwsError(res, error, 'req-1');
  });
  const { status, awsStatus = status === 401 ? 403 : status }: ErrorRow = ERRORS[code];
  expect(aws.status).toBe(awsStatus);
  expect(aws.headers.get('content-type')).toBe('application/json');
  expect(aws.headers.get('x-amzn-errortype')).toBe(ERRORS[code].awsType);
  expect(aws.headers.get('x-amzn-requestid')).toBe('req-1');
  expect(aws.headers.get('www-authenticate')).toBe(problem.headers.get('www-authenticate'));
  expect(await aws.json()).toEqual({ message: `What is wrong. [${code}]` });
});

test('problems and extra members are shown; extra members cannot replace ours', () => {
  const error = new ServiceError('request.invalid', 'd', {
    problems: ['a: too long'],
    extra: { scope: 's', status: 200, code: 'x' },
  });
  expect(problemOf(error, 'r')).toMatchObject({
    problems: ['a: too long'],
    scope: 's',
    status: 400,
    code: 'request.invalid',
  });
});

const REALM = 'Bearer realm="merchant-bedrock"';
test.each<[ErrorCode, Record<string, string>, string | null]>([
  ['auth.missing_token', {}, REALM],
  ['auth.invalid_token', {}, `${REALM}, error="invalid_token"`],
  ['session.invalid', {}, `${REALM}, error="invalid_token"`],
  ['auth.token_in_wrong_place', {}, `${REALM}, error="invalid_request"`],
  [
    'auth.insufficient_scope',
    { scope: 'usage:read' },
    `${REALM}, error="insufficient_scope", scope="usage:read"`,
  ],
  ['auth.insufficient_scope', { scope: 'a", evil="1' }, `${REALM}, error="insufficient_scope"`],
  ['auth.insufficient_scope', {}, `${REALM}, error="insufficient_scope"`],
  ['auth.source_not_allowed', {}, null],
  ['merchant.not_found', { scope: 'usage:read' }, null],
])('%s %j is challenged with %s', async (code, extra, challenge) => {
  const answer = await answerOf((res) => {
    sendProblem(res, new ServiceError(code, 'd', { extra }), 'r');
  });
  expect(answer.headers.get('www-authenticate')).toBe(challenge);
});

test('Retry-After is whole seconds, rounded up', async () => {
  const error = new ServiceError('service.overloaded', 'd', { retryAfterSeconds: 1.2, problems: ['a', 'b'] });
  for (const send of [sendProblem, sendAwsError]) {
    expect(
      (
        await answerOf((res) => {
          send(res, error, 'r');
        })
      ).headers.get('retry-after'),
    ).toBe('2');
  }
  const aws = await answerOf((res) => {
    sendAwsError(res, error, 'r');
  });
  expect(await aws.json()).toEqual({ message: 'd a; b [service.overloaded]' });
});

test('HEAD gets the headers alone, and an answer that has begun is cut', async () => {
  const error = new ServiceError('internal', 'd');
  const head = await answerOf((res) => {
    sendProblem(res, error, 'r');
  }, 'HEAD');
  expect([head.status, await head.text()]).toEqual([500, '']);
  const begun = await answerOf((res) => {
    res.write('half');
    setTimeout(() => {
      sendProblem(res, error, 'r');
    }, 20);
  });
  await expect(begun.text()).rejects.toThrow();
});
