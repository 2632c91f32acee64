import { createServer as createHttpServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { activateOverHttp } from '../../scripts/cli/activate-role.ts';
import { orderOf } from '../../scripts/cli/onboard-order.ts';
import { onboardedReply } from '../../scripts/cli/onboard-result.ts';
import { onboardOverHttp } from '../../scripts/cli/onboard-service.ts';
import { mintToken } from '../../src/auth/token.ts';
import type { CredentialId, MerchantId } from '../../src/domain/ids.ts';
import { selfSignedCertificate } from '../server/protocols-certificate.ts';
import { startMisbehavingServer } from './misbehaving-server.ts';
import type { MisbehavingServer } from './misbehaving-server.ts';
import { replay, transcriptsIn } from './replay.ts';
import { runCommand } from './transcript.ts';

const OPERATOR_TOKEN = mintToken('operator', 'test').text;
let server: MisbehavingServer;
let tls: Server;
let tlsUrl: string;
let downUrl: string;
let tlsRequests = 0;

beforeAll(async () => {
  server = await startMisbehavingServer();
  tls = createTlsServer(selfSignedCertificate(), () => (tlsRequests += 1));
  tlsUrl = `https://127.0.0.1:${String(await listen(tls))}`;
  const closed = createServer();
  downUrl = `http://127.0.0.1:${String(await listen(closed))}`;
  closed.close();
});

afterAll(async () => {
  tls.close();
  await server[Symbol.asyncDispose]();
});

describe('onboard, when the other side misbehaves', () => {
  test.each(transcriptsIn('misbehaving'))('%s', async (file) => {
    const names = {
      URL: server.url,
      TLS_URL: tlsUrl,
      DOWN_URL: downUrl,
      OPERATOR_TOKEN,
      KEY_ID: 'AKIAQWERTYUIOPASDFGH',
      SECRET: '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',
    };
    await replay(file, { names, secrets: ['OPERATOR_TOKEN', 'SECRET'] });
  });

  test('no order is sent twice, and none to another place', () => {
    expect(server.requests.length).toBeGreaterThan(5);
    expect(new Set(server.requests)).toEqual(new Set(['POST /api/ops/merchants']));
    expect(tlsRequests).toBe(0);
  });

  test('a signal waits for the outcome; a second one ends at once and says that nobody knows', async () => {
    const before = server.requests.length;
    const { code, stdout, stderr } = await runCommand(
      'scripts/onboard.ts',
      [
        '--url',
        server.url,
        '--merchant',
        'never-answers',
        '--name',
        'x',
        '--no-credential',
        '--secrets-stdin',
      ],
      {
        stdin: JSON.stringify({ operatorToken: OPERATOR_TOKEN }),
        watch: (child) => {
          const signal = setInterval(() => {
            if (server.requests.length > before) child.kill('SIGINT');
          }, 100);
          child.once('exit', () => {
            clearInterval(signal);
          });
        },
      },
    );
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
    expect(stderr).toMatch(
      /^It has begun; waiting for its outcome\. Once more ends at once\.\nCut off: it is not known whether never-answers was onboarded\.\n/,
    );
  });

  test('an answer that never comes is not waited for for ever', async () => {
    const order = orderOf({ merchant: 'never-answers', name: 'x', 'no-credential': true }, {});
    const delivery = { origin: server.url, operatorToken: OPERATOR_TOKEN, timeoutMs: 200 };
    await expect(onboardOverHttp(order, delivery)).rejects.toThrow(
      `It is not known whether never-answers was onboarded: ${server.url} did not answer within 1 s.`,
    );
  });
});

test('an activation whose answer is cut is not known to have failed', async () => {
  const cutting = createHttpServer((_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' });
    response.write('{"state":', () => response.destroy());
  });
  const port = await listen(cutting);
  const order = {
    merchantId: 'merchant-a' as MerchantId,
    credentialId: `cred_${'A'.repeat(22)}` as CredentialId,
    roleArn: 'arn:aws:iam::111122223333:role/x',
  };
  try {
    const origin = `http://127.0.0.1:${String(port)}`;
    await expect(activateOverHttp(order, { origin, merchantToken: 'x' })).rejects.toThrow(
      /^Not known to be active: the answer .* not whole/,
    );
  } finally {
    cutting.close();
  }
});

test('an odd role does not cost the token', () => {
  const answer = {
    merchantId: 'merchant-a',
    apiKey: {
      id: 'A'.repeat(12),
      token: mintToken('merchant', 'test').text,
      expiresAt: '2030-01-01T00:00:00.000Z',
    },
    credentialId: null,
    role: { servicePrincipalArn: 'arn:aws-eusc:iam::111122223333:role/x' },
  };
  expect(onboardedReply.parse(answer)).toEqual({ ...answer, role: undefined });
});

async function listen(listener: Server): Promise<number> {
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  return (listener.address() as AddressInfo).port;
}
