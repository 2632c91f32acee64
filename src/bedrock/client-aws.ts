import { timingSafeEqual } from 'node:crypto';
import { BedrockClient } from '@aws-sdk/client-bedrock';
import { BedrockRuntimeClient } from '@aws-sdk/client-bedrock-runtime';
import { CloudWatchLogsClient } from '@aws-sdk/client-cloudwatch-logs';
import { S3Client } from '@aws-sdk/client-s3';
import type { AccessKey, AwsCredential, BedrockApiKey } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { Secret } from '../domain/secret.ts';
import { EgressGuard } from './egress-aws.ts';
import { basePath, fingerprint } from './egress.ts';
import type { ExpectedRequest, ExpectedSigner } from './egress.ts';
import type { Transport } from './transport-aws.ts';

export interface ClientOptions {
  credential: AwsCredential;
  region: string;
  /** From `endpointFor`. */
  endpoint: URL;
  transport: Transport;
}

/** What the guard lets pass besides host and signer. */
type Shape = Pick<ExpectedRequest, 'method' | 'path' | 'query'> & { service?: 'logs' | 's3' };

/** One encoded segment each: ids and ARNs hold no slash once encoded. */
const RUNTIME: Shape = { method: 'POST', path: /^\/model\/[^/]+\/[a-z-]+$/ };
const CONTROL: Shape = { method: 'GET', path: /^\/[a-z-]+\/[^/]+$/ };
const LISTS: Shape = {
  method: 'GET',
  path: /^\/(foundation-models|inference-profiles|foundation-model-availability\/[^/]+)$/,
  query: ['maxResults', 'nextToken', 'type'],
};
const LOG_GROUP: Shape = { method: 'POST', path: /^\/$/, service: 'logs' };
const LOG_BUCKET: Shape = {
  method: 'GET',
  path: /^\/[a-z0-9][a-z0-9.-]+(\/|(\/[A-Za-z0-9!_.*'()~%-]+)+)?$/,
  query: ['list-type', 'prefix', 'continuation-token', 'x-id'],
  service: 's3',
};

/** A client that can sign for this credential only. Costs about 0.4 ms and 16 KB: keep it in the pool. */
export function buildRuntimeClient(options: ClientOptions): BedrockRuntimeClient {
  const client = new BedrockRuntimeClient({ ...explicitConfig(options, RUNTIME), maxAttempts: 1 });
  keepSigner(client.config);
  return client;
}

/** The same for the control plane, whose reads may be tried twice. */
export function buildControlClient(options: ClientOptions): BedrockClient {
  return new BedrockClient({ ...explicitConfig(options, CONTROL), maxAttempts: 2 });
}

/** The same for its lists, each tried once: whoever asks wants to know what AWS answers. */
export function buildListClient(options: ClientOptions): BedrockClient {
  return new BedrockClient({ ...explicitConfig(options, LISTS), maxAttempts: 1 });
}

/** A reader of one log group. */
export function buildLogGroupClient(options: ClientOptions): CloudWatchLogsClient {
  return new CloudWatchLogsClient({ ...explicitConfig(options, LOG_GROUP), maxAttempts: 2 });
}

/** A reader of one bucket, named in the path so that the host is the one expected. */
export function buildLogBucketClient(options: ClientOptions): S3Client {
  return new S3Client({
    ...explicitConfig(options, LOG_BUCKET),
    maxAttempts: 2,
    forcePathStyle: true,
    followRegionRedirects: false,
    useArnRegion: false,
    disableMultiregionAccessPoints: true,
    disableS3ExpressSessionAuth: true,
    useAccelerateEndpoint: false,
    useGlobalEndpoint: false,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

/**
 * Whether two credentials are the same to the last character. The pool's keys are made elsewhere; this makes sure that
 * one key never stands for two credentials.
 */
export function sameCredential(a: AwsCredential, b: AwsCredential): boolean {
  if (a === b) return true;
  if (a.kind === 'bedrock-api-key') return b.kind === 'bedrock-api-key' && sameSecret(a.apiKey, b.apiKey);
  if (b.kind === 'bedrock-api-key' || a.accessKeyId !== b.accessKeyId) return false;
  return sameSecret(a.secretAccessKey, b.secretAccessKey) && sameSecret(a.sessionToken, b.sessionToken);
}

function sameSecret(a: Secret | undefined, b: Secret | undefined): boolean {
  return timingSafeEqual(fingerprint(a?.reveal() ?? ''), fingerprint(b?.reveal() ?? ''));
}

/**
 * Everything the SDK would otherwise look up in environment variables, in files or on the network, said outright.
 * A plain credentials object, because the SDK keeps a provider's first answer for ever.
 * @throws ServiceError credential.not_usable
 */
function explicitConfig(
  { credential, region, endpoint, transport }: ClientOptions,
  { service, ...shape }: Shape,
) {
  const identity =
    credential.kind === 'access-key' ? accessKeyIdentity(credential) : apiKeyIdentity(credential);
  const signer = { ...expectedSigner(credential, region), ...(service !== undefined && { service }) };
  return {
    ...identity,
    region,
    endpoint: endpoint.origin + basePath(endpoint),
    requestHandler: new EgressGuard(transport, { ...shape, endpoint, signer }),
    useFipsEndpoint: false,
    useDualstackEndpoint: false,
    ignoreConfiguredEndpointUrls: true,
    disableClockSkewCorrection: false,
    defaultsMode: 'standard' as const,
    retryMode: 'standard',
    credentialDefaultProvider: () => refuseIdentity,
    defaultUserAgentProvider: () => Promise.resolve<[string][]>([['merchant-bedrock']]),
    userAgentAppId: () => Promise.resolve(undefined),
  };
}

/** `sigv4` and `httpBearerAuth` are the names the SDK compares with: the part of a scheme id after the `#`. */
function accessKeyIdentity({ accessKeyId, secretAccessKey, sessionToken }: AccessKey) {
  const credentials = {
    accessKeyId: usable(accessKeyId),
    secretAccessKey: usable(secretAccessKey.reveal()),
    ...(sessionToken === undefined ? {} : { sessionToken: usable(sessionToken.reveal()) }),
  };
  return { credentials, token: refuseIdentity, authSchemePreference: ['sigv4'] };
}

function apiKeyIdentity({ apiKey }: BedrockApiKey) {
  const token = { token: usable(apiKey.reveal()) };
  return { credentials: refuseIdentity, token, authSchemePreference: ['httpBearerAuth'] };
}

/** An empty part would send the SDK looking for another identity, a space or line break would change the header's meaning. */
function usable(part: string): string {
  if (/^[\x21-\x7e]+$/.test(part)) return part;
  throw new ServiceError(
    'credential.not_usable',
    'A part of the credential is empty or has illegal characters.',
  );
}

function refuseIdentity(): Promise<never> {
  return Promise.reject(
    new ServiceError('internal', 'The SDK asked for an identity that is not the call’s own.'),
  );
}

function expectedSigner(credential: AwsCredential, region: string): ExpectedSigner {
  if (credential.kind === 'bedrock-api-key') {
    return { scheme: 'bearer', authorization: fingerprint(`Bearer ${credential.apiKey.reveal()}`) };
  }
  const { accessKeyId, sessionToken } = credential;
  const token = sessionToken === undefined ? undefined : fingerprint(sessionToken.reveal());
  return { scheme: 'sigv4', accessKeyId, region, sessionToken: token };
}

type Signer = BedrockRuntimeClient['config']['signer'];

/** The SDK builds a signer for every request, a seventh of the whole cost of a call; key and region never change here. */
function keepSigner(config: { signer: Signer }): void {
  const build = config.signer;
  let signer: ReturnType<Signer> | undefined;
  config.signer = (scheme) => (signer ??= build(scheme));
}
