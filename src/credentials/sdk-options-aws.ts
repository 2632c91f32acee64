import dns from 'node:dns';
import type { LookupFunction } from 'node:net';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { guardedLookup } from '../domain/address.ts';
import type { Reach } from '../domain/address.ts';
import type { AccessKey, AwsCredential } from '../domain/credential.ts';

/** Who signs: the keys given, or `workload`, the service's own identity from the SDK's default chain. Only the vault and AssumeRole may say `workload`. */
export type Signer = AwsCredential | 'workload';

export interface ClientTarget {
  /** Already checked against the list of regions. */
  region: string;
  /** Scheme, host and port that this client may talk to; nothing else is ever connected to. */
  endpoint: string;
  maxAttempts: number;
  /** Where the endpoint's name may lead. */
  reach: Reach;
  /** Default: the system's. */
  lookup?: LookupFunction | undefined;
  /** Of one attempt, in milliseconds; connecting may take at most 3,000 of them. */
  requestTimeoutMs: number;
}

type HandlerRequest = Parameters<NodeHttpHandler['handle']>[0];
type HandlerOptions = Parameters<NodeHttpHandler['handle']>[1];

/**
 * Options that leave an AWS client nothing to guess: neither environment nor profile can change its host, signer, scheme or retries
 * (docs/security.md). `authSchemePreference` takes the short names `sigv4` and `httpBearerAuth`; the long ones are ignored without a word.
 */
export function sdkOptions(target: ClientTarget, signer: Signer) {
  return {
    region: target.region,
    endpoint: target.endpoint,
    maxAttempts: target.maxAttempts,
    retryMode: 'standard',
    defaultsMode: 'standard' as const,
    useFipsEndpoint: false,
    useDualstackEndpoint: false,
    userAgentAppId: 'merchant-bedrock',
    requestHandler: new PinnedHandler(target, authorizationOf(signer)),
    ...authOf(signer),
  };
}

function authOf(signer: Signer) {
  if (signer === 'workload') return { authSchemePreference: ['sigv4'] };
  if (signer.kind === 'bedrock-api-key') {
    return {
      authSchemePreference: ['httpBearerAuth'],
      token: { token: revealed(signer.apiKey.reveal()) },
      credentials: refuseOtherIdentity,
    };
  }
  return {
    authSchemePreference: ['sigv4'],
    credentials: accessKeyIdentity(signer),
    token: refuseOtherIdentity,
  };
}

/** What `credentials: undefined` would be: somebody else's identity. Every part that the kind needs must be there. */
function accessKeyIdentity({ accessKeyId, secretAccessKey, sessionToken }: AccessKey) {
  return {
    accessKeyId: revealed(accessKeyId),
    secretAccessKey: revealed(secretAccessKey.reveal()),
    ...(sessionToken === undefined ? {} : { sessionToken: revealed(sessionToken.reveal()) }),
  };
}

function revealed(value: string): string {
  if (typeof value !== 'string' || value === '') throw new TypeError('a credential has an empty part');
  return value;
}

function refuseOtherIdentity(): Promise<never> {
  return Promise.reject(new TypeError('this client has one identity and no other'));
}

/** How the Authorization header begins when the right key signed; undefined where the SDK finds the key itself. */
function authorizationOf(signer: Signer): string | undefined {
  if (signer === 'workload') return undefined;
  return signer.kind === 'bedrock-api-key'
    ? `Bearer ${signer.apiKey.reveal()}`
    : `AWS4-HMAC-SHA256 Credential=${signer.accessKeyId}/`;
}

/** HTTP/1.1 with real timeouts (the SDK only warns otherwise), which looks at each final request before it leaves: right host, right signer. */
class PinnedHandler extends NodeHttpHandler {
  readonly #endpoint: URL;
  readonly #authorization: string | undefined;

  constructor(target: ClientTarget, authorization: string | undefined) {
    const lookup = guardedLookup(target.lookup ?? dns.lookup, target.reach);
    const options = {
      httpAgent: { keepAlive: true, lookup },
      httpsAgent: { keepAlive: true, lookup },
      connectionTimeout: Math.min(3_000, target.requestTimeoutMs),
      requestTimeout: target.requestTimeoutMs,
      throwOnRequestTimeout: true,
      // The one above ends at the headers; this one guards the body.
      socketTimeout: target.requestTimeoutMs,
    };
    super(options);
    this.#endpoint = new URL(target.endpoint);
    this.#authorization = authorization;
  }

  override handle(request: HandlerRequest, options?: HandlerOptions) {
    const { protocol, hostname, port } = this.#endpoint;
    if (
      request.protocol !== protocol ||
      request.hostname !== hostname ||
      String(request.port ?? '') !== port ||
      !authorizationIn(request.headers).startsWith(this.#authorization ?? '')
    )
      throw new TypeError('a request for another host, or signed by another key, was stopped');
    return super.handle(request, options);
  }
}

/** The SDK writes the name in lower case for signatures and in capitals for bearer tokens. */
function authorizationIn(headers: Readonly<Record<string, string>>): string {
  return headers['authorization'] ?? headers['Authorization'] ?? '';
}
