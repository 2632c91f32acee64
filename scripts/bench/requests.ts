import { AWS } from '../../test/support/aws-keys.ts';
import { Failure } from '../cli/run.ts';
import type { House } from './house.ts';
import { REGION } from './house.ts';
import type { RouteName } from './options.ts';
import { Signer } from './sigv4.ts';

const MODEL = 'amazon.nova-micro-v1%3A0';
/** 120 words in, 40 (or, streamed, 80 in 20 deltas) out: small, so that what is measured is the way and not the load. */
const PROMPT = Array.from({ length: 120 }, (_, index) => `word${String(index)}`).join(' ');

/** What the end of every good answer holds. */
export const MARKERS: Readonly<Record<RouteName, string>> = {
  invoke: '"usage"',
  converse: '"usage"',
  'converse-stream': '"totalTokens"',
};

export interface BenchMerchant {
  id: string;
  token: string;
}

export function bodyOf(route: RouteName): string {
  const words = route === 'converse-stream' ? ' STAND_IN_WORDS=80' : '';
  return JSON.stringify({
    messages: [{ role: 'user', content: [{ text: `${PROMPT}${words}` }] }],
    inferenceConfig: { maxTokens: 256 },
  });
}

/** As an SDK sends it to the service, with the merchant's API key. */
export function serviceRequest(route: RouteName, merchant: BenchMerchant, port: number): string {
  return post(`/api/merchants/${merchant.id}/bedrock${pathOf(route)}`, bodyOf(route), {
    host: `127.0.0.1:${String(port)}`,
    authorization: `Bearer ${merchant.token}`,
    'content-type': 'application/json',
  });
}

export function bareRequest(route: RouteName, port: number): string {
  return post(pathOf(route), bodyOf(route), {
    host: `127.0.0.1:${String(port)}`,
    'content-type': 'application/json',
  });
}

/** Signed beforehand, so that signing costs the load generator nothing; AWS and the stand-in take a signature for five minutes. */
export function signedRequest(route: RouteName, port: number): string {
  const { accessKeyId, secretAccessKey } = AWS.merchantA;
  const body = bodyOf(route);
  const headers = new Signer({ accessKeyId, secretAccessKey, region: REGION }).sign({
    method: 'POST',
    host: `127.0.0.1:${String(port)}`,
    path: pathOf(route),
    contentType: 'application/json',
    body: Buffer.from(body),
  });
  return post(pathOf(route), body, headers);
}

/** Through the operators' API, as any merchant: nothing is written past the service. */
export async function onboardAll(
  house: House,
  count: number,
  stopped: AbortSignal,
): Promise<BenchMerchant[]> {
  const merchants: BenchMerchant[] = [];
  let next = 0;
  const worker = async () => {
    while (next < count && !stopped.aborted) {
      const index = next++;
      merchants[index] = await onboard(house, `bench-${String(index)}`);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return merchants;
}

async function onboard({ service, operatorToken }: House, id: string): Promise<BenchMerchant> {
  const { accessKeyId, secretAccessKey } = AWS.merchantA;
  const answer = await fetch(`http://127.0.0.1:${String(service.port)}/api/ops/merchants`, {
    method: 'POST',
    headers: { authorization: `Bearer ${operatorToken}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      id,
      name: `Merchant ${id}`,
      apiKey: { name: 'bench' },
      credential: {
        kind: 'access-key',
        name: 'main',
        region: REGION,
        awsAccessKeyId: accessKeyId,
        awsSecretAccessKey: secretAccessKey,
        makeDefault: true,
      },
    }),
  });
  if (answer.status !== 201)
    throw new Failure(`onboarding was answered ${String(answer.status)}: ${await answer.text()}`);
  const { apiKey } = (await answer.json()) as { apiKey: { token: string } };
  return { id, token: apiKey.token };
}

function pathOf(route: RouteName): string {
  return `/model/${MODEL}/${route}`;
}

function post(path: string, body: string, headers: Readonly<Record<string, string>>): string {
  const lines = Object.entries({ ...headers, 'content-length': String(Buffer.byteLength(body)) });
  return `POST ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`;
}
