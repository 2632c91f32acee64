import { AWS } from './aws-keys.ts';
import type { TestService } from './service.ts';

/** JSON of an answer; the test says what it expects of it. */
type Json = Record<string, unknown>;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** The body as JSON; an empty object when it is none. */
  json: Json;
}

/** Someone who sends requests: a token, or nobody. */
export class Person {
  readonly #url: string;
  readonly token: string | undefined;

  constructor(url: string, token?: string) {
    this.#url = url;
    this.token = token;
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send('GET', path, undefined, headers);
  }

  post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return this.send('POST', path, body, headers);
  }

  async send(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const response = await this.raw(method, path, body, headers);
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, json: parse(text) };
  }

  raw(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
    const bytes =
      body === undefined || typeof body === 'string' || body instanceof Uint8Array
        ? body
        : JSON.stringify(body);
    return fetch(this.#url + path, {
      method,
      redirect: 'manual',
      headers: {
        ...(this.token !== undefined && { authorization: `Bearer ${this.token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(bytes !== undefined && { body: bytes as string }),
    });
  }
}

/** A merchant's backend, with the merchant's prefix put before every path. */
export class MerchantPerson extends Person {
  readonly merchantId: string;
  readonly prefix: string;
  readonly credentialId: string;
  readonly apiKeyId: string;
  readonly baseUrl: string;

  constructor(
    url: string,
    facts: { merchantId: string; token: string; credentialId: string; apiKeyId: string },
  ) {
    super(url, facts.token);
    this.merchantId = facts.merchantId;
    this.prefix = `/api/merchants/${facts.merchantId}/bedrock`;
    this.credentialId = facts.credentialId;
    this.apiKeyId = facts.apiKeyId;
    this.baseUrl = url + this.prefix;
  }

  override send(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer> {
    return super.send(method, path.startsWith('/api/') ? path : this.prefix + path, body, headers);
  }

  override raw(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Response> {
    return super.raw(method, path.startsWith('/api/') ? path : this.prefix + path, body, headers);
  }
}

export function operatorOf(service: TestService): Person {
  return new Person(service.url, service.operatorToken);
}

interface OnboardOptions {
  awsKey?: { accessKeyId: string; secretAccessKey: string };
  directAllowed?: boolean;
  serviceDefaultsAllowed?: boolean;
  regions?: string[];
  scopes?: string[];
}

/** Onboards a merchant over REST, as an operator, with a stored credential that is its default. Everything is allowed unless said. */
export async function onboard(
  service: TestService,
  merchantId: string,
  options: OnboardOptions = {},
): Promise<MerchantPerson> {
  const {
    awsKey = AWS.merchantA,
    directAllowed = true,
    serviceDefaultsAllowed = true,
    regions = [],
    scopes,
  } = options;
  service.standIn.addAccessKey(AWS.merchantA);
  service.standIn.addAccessKey(AWS.merchantADirect);
  service.standIn.addAccessKey(AWS.merchantB);
  const answer = await operatorOf(service).post('/api/ops/merchants', {
    id: merchantId,
    name: `Merchant ${merchantId}`,
    directAllowed,
    serviceDefaultsAllowed,
    regions,
    apiKey: { name: 'first', ...(scopes && { scopes }) },
    credential: {
      kind: 'access-key',
      name: 'main',
      region: 'us-east-1',
      awsAccessKeyId: awsKey.accessKeyId,
      awsSecretAccessKey: awsKey.secretAccessKey,
      makeDefault: true,
    },
  });
  if (answer.status !== 201)
    throw new Error(`onboarding was answered ${String(answer.status)}: ${answer.text}`);
  const { apiKey, credentialId } = answer.json as {
    apiKey: { id: string; token: string };
    credentialId: string;
  };
  return new MerchantPerson(service.url, {
    merchantId,
    token: apiKey.token,
    apiKeyId: apiKey.id,
    credentialId,
  });
}

/** Direct credentials, as our JSON routes and as AWS-shaped ones take them. */
export function directFields(
  key: { accessKeyId: string; secretAccessKey: string } = AWS.merchantADirect,
  region = 'us-east-1',
) {
  return { awsAccessKeyId: key.accessKeyId, awsSecretAccessKey: key.secretAccessKey, awsRegion: region };
}

export function directHeaders(
  key: { accessKeyId: string; secretAccessKey: string } = AWS.merchantADirect,
  region = 'us-east-1',
) {
  return {
    'x-bedrock-aws-access-key-id': key.accessKeyId,
    'x-bedrock-aws-secret-access-key': key.secretAccessKey,
    'x-bedrock-aws-region': region,
  };
}

export function converseBody(text: string, maxTokens?: number) {
  return {
    messages: [{ role: 'user', content: [{ text }] }],
    ...(maxTokens !== undefined && { inferenceConfig: { maxTokens } }),
  };
}

/** The calls of Bedrock runtime that the stand-in saw: the witness of what left the building. */
export function runtimeCalls(service: Pick<TestService, 'standIn'>) {
  return service.standIn.journal.filter((entry) => entry.path.startsWith('/model/'));
}

function parse(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return {};
  }
}
