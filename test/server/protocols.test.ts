import { createHash } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { BedrockRuntimeClient, ConverseCommand } from '@aws-sdk/client-bedrock-runtime';
import express from 'express';
import { BodyBudget } from '../../src/http/body-budget.ts';
import { readBody } from '../../src/http/steps/read-body.ts';
import { selfSignedCertificate } from './protocols-certificate.ts';
import { CLIENTS, startServer, uncaught } from './protocols-harness.ts';
import type { ClientName, RunningServer } from './protocols-harness.ts';
import { eventually } from '../support/until.ts';

const NAMES = Object.keys(CLIENTS) as ClientName[];
const budget = new BodyBudget(64_000_000);
let cleartext: RunningServer;
let encrypted: RunningServer;

beforeAll(async () => {
  cleartext = await startServer(createApp());
  encrypted = await startServer(createApp(), { tls: selfSignedCertificate() });
});

afterAll(async () => {
  await cleartext.server.close(0);
  await encrypted.server.close(0);
  expect(uncaught).toEqual([]);
  expect(budget.inUse).toBe(0);
});

function createApp(): express.Express {
  const app = express();
  app.get('/seen', (req, res) => {
    const { httpVersion, originalUrl, protocol, hostname, ip } = req;
    res
      .status(201)
      .set('x-thing', 'a')
      .append('x-thing', 'b')
      .json({ httpVersion, originalUrl, protocol, hostname, ip });
  });
  app.get('/items/:id', (req, res) => res.send(req.params.id));
  app.post('/hash', async (req, res) => {
    using lease = await readBody(req, { bytesMax: 25_000_000, budget, timeoutMs: 5_000 });
    res.json({ bytes: lease.bytes.length, sha256: sha256(lease.bytes) });
  });
  app.post('/model/:id/converse', async (req, res) => {
    using lease = await readBody(req, { bytesMax: 25_000_000, budget, timeoutMs: 5_000 });
    const { messages } = JSON.parse(lease.bytes.toString()) as {
      messages: { content: { text: string }[] }[];
    };
    const text = `${req.params.id}: ${messages[0]?.content[0]?.text ?? ''}`;
    res.json({ output: { message: { role: 'assistant', content: [{ text }] } }, stopReason: 'end_turn' });
  });
  app.get('/hop-by-hop/:how', (req, res) => {
    const headers = {
      Connection: 'x-a',
      'Keep-Alive': 'timeout=5',
      'Transfer-Encoding': 'identity',
      Upgrade: 'h2c',
    };
    if (req.params.how === 'object') res.writeHead(200, { ...headers, 'x-kept': '1' });
    else if (req.params.how === 'list')
      res.writeHead(200, [...Object.entries(headers).flat(), 'x-kept', '1']);
    else
      for (const [name, value] of Object.entries({ ...headers, 'x-kept': '1' })) res.setHeader(name, value);
    res.end('ok');
  });
  return app;
}

function portOf(name: ClientName): number {
  return name.endsWith('TLS') ? encrypted.port : cleartext.port;
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

test.each(NAMES)('%s: one port serves it, and Express sees the same request', async (name) => {
  const answer = await CLIENTS[name](portOf(name), { path: '/seen?a=1' });
  expect(answer.status).toBe(201);
  expect(String(answer.headers['x-thing'])).toMatch(/^a, ?b$/);
  expect(JSON.parse(answer.body.toString())).toEqual({
    httpVersion: name.startsWith('HTTP/2') ? '2.0' : '1.1',
    originalUrl: '/seen?a=1',
    protocol: name.endsWith('TLS') ? 'https' : 'http',
    hostname: '127.0.0.1',
    ip: '127.0.0.1',
  });
});

test.each(NAMES)('%s: a body of 3 MB arrives whole', async (name) => {
  const body = Buffer.alloc(3_000_000, 'pattern of 17 chr');
  const answer = await CLIENTS[name](portOf(name), {
    path: '/hash',
    method: 'POST',
    headers: { 'content-length': body.length },
    body,
  });
  expect(JSON.parse(answer.body.toString())).toEqual({ bytes: body.length, sha256: sha256(body) });
});

test.each(NAMES)('%s: HEAD, and an unknown path answered with a problem document', async (name) => {
  const head = await CLIENTS[name](portOf(name), { path: '/seen', method: 'HEAD' });
  expect([head.status, head.body.length]).toEqual([201, 0]);
  const unknown = await CLIENTS[name](portOf(name), { path: '/nowhere' });
  expect(unknown.headers['content-type']).toBe('application/problem+json');
  expect(JSON.parse(unknown.body.toString())).toMatchObject({ status: 404, code: 'route.not_found' });
  const headUnknown = await CLIENTS[name](portOf(name), { path: '/nowhere', method: 'HEAD' });
  expect([headUnknown.status, headUnknown.body.length]).toEqual([404, 0]);
});

test.each(NAMES)(
  '%s: runs of slashes in the path become one; the rest of the target is not touched',
  async (name) => {
    const answer = await CLIENTS[name](portOf(name), { path: '//items///a%2F%2Fb?u=//x//y' });
    expect(answer.body.toString()).toBe('a//b');
    const seen = await CLIENTS[name](portOf(name), { path: '//seen?u=//x//%2F' });
    expect(JSON.parse(seen.body.toString())).toMatchObject({ originalUrl: '/seen?u=//x//%2F' });
  },
);

test.each(['set', 'object', 'list'])(
  'HTTP/2: headers of HTTP/1 connections are dropped (%s)',
  async (how) => {
    const answer = await CLIENTS['HTTP/2'](cleartext.port, { path: `/hop-by-hop/${how}` });
    expect([answer.status, answer.body.toString(), answer.headers['x-kept']]).toEqual([200, 'ok', '1']);
    for (const name of ['connection', 'keep-alive', 'transfer-encoding', 'upgrade']) {
      expect(answer.headers).not.toHaveProperty(name);
    }
  },
);

test('fetch works, several requests at once', async () => {
  const answers = await Promise.all(
    ['/seen', '/items/1', '/nowhere'].map((path) =>
      fetch(`http://127.0.0.1:${String(cleartext.port)}${path}`),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual([201, 200, 404]);
  await Promise.all(answers.map((answer) => answer.arrayBuffer()));
});

test('the AWS SDK for JavaScript converses with its default handler, which is HTTP/2 with prior knowledge', async () => {
  const client = new BedrockRuntimeClient({
    region: 'us-east-1',
    endpoint: `http://127.0.0.1:${String(cleartext.port)}/`,
    token: { token: 'mbk_test' },
    authSchemePreference: ['httpBearerAuth'],
  });
  const say = (text: string) =>
    client.send(
      new ConverseCommand({
        modelId: 'amazon.nova-micro-v1:0',
        messages: [{ role: 'user', content: [{ text }] }],
      }),
    );
  const answers = await Promise.all(['one', 'two', 'three'].map(say));
  expect(answers.map(({ output }) => output?.message?.content?.[0]?.text)).toEqual([
    'amazon.nova-micro-v1:0: one',
    'amazon.nova-micro-v1:0: two',
    'amazon.nova-micro-v1:0: three',
  ]);
  client.destroy();
});

test('no request is counted once all are answered', async () => {
  expect(
    await eventually(
      () => cleartext.server.openRequests + encrypted.server.openRequests,
      (open) => open === 0,
    ),
  ).toBe(0);
});
