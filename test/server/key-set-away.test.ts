import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { generateKeyPair, SignJWT } from 'jose';
import { converseBody, onboard, Person } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const BEDROCK = '/api/merchants/merchant-a/bedrock';
const issuer = createServer((_req, res) => void res.writeHead(500).end());

let service: TestService;
let merchant: MerchantPerson;

beforeAll(async () => {
  await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve));
  service = await startTestService({
    JWT_ALGORITHM: 'ES256',
    JWT_ISSUER: 'https://issuer.example',
    JWT_AUDIENCE: 'merchant-bedrock',
    JWT_JWKS_URL: `http://127.0.0.1:${String((issuer.address() as AddressInfo).port)}/keys`,
    AUTH_FAILURES_PER_ADDRESS_MAX: '3',
  });
  merchant = await onboard(service, 'merchant-a');
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
  issuer.close();
});

test('while the key set of the issuer is away its users are told so, on every kind of route, and nobody is locked out', async () => {
  const { privateKey } = await generateKeyPair('ES256');
  const token = await new SignJWT({ merchant_id: 'merchant-a', scope: 'invoke usage:read' })
    .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
    .setIssuer('https://issuer.example')
    .setAudience('merchant-bedrock')
    .setSubject('user-1')
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(privateKey);
  const user = new Person(service.url, token);
  for (let n = 0; n < 5; n += 1) {
    const answer = await user.get(`${BEDROCK}/usage`);
    expect([answer.status, answer.json['code']]).toEqual([503, 'auth.unavailable']);
    expect(answer.headers.get('retry-after')).toBe('5');
  }
  const wire = await user.post(`${BEDROCK}/model/amazon.nova-micro-v1:0/converse`, converseBody('x'));
  expect([wire.status, wire.headers.get('x-amzn-errortype')]).toEqual([503, 'ServiceUnavailableException']);
  // A key that this process has not seen yet, from the same address.
  const { json } = await merchant.post('/api-keys', { name: 'new', scopes: ['usage:read'] });
  expect((await new Person(service.url, String(json['token'])).get(`${BEDROCK}/usage`)).status).toBe(200);

  const lines = service.logLines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const told = lines.filter(({ msg }) => msg !== 'request' && String(msg).includes('JWT_JWKS_URL'));
  expect(told).toMatchObject([{ error: 'KeySetError(status-500)' }]);
  expect(lines.filter(({ msg }) => msg === 'request failed')).toEqual([]);
});
