import type { Order } from './onboard-order.ts';
import { onboardedReply, problemReply, refusedBy, unknownOutcome } from './onboard-result.ts';
import type { Onboarded } from './onboard-result.ts';
import { Failure, nameOf } from './run.ts';

/** Longer than the service takes at its worst: three calls of AWS, each tried three times for 5 s. */
export const ONBOARD_TIMEOUT_MS = 60_000;
const ANSWER_BYTES_MAX = 512 * 1024;
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** Errors from before the first byte of a request: nothing was sent. All others leave it open. */
const NOT_SENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** What is wrong with --url; the address may hold a password, so it is not repeated. */
export function urlProblems(text: string, env: Readonly<Record<string, string | undefined>>): string[] {
  if (!URL.canParse(text) || !/^https?:$/.test(new URL(text).protocol))
    return ['--url must be https://host or https://host:port'];
  const { protocol, hostname, username, password, pathname, search, hash } = new URL(text);
  const rules: readonly [holds: boolean, problem: string][] = [
    [
      protocol === 'https:' || LOOPBACK.test(hostname),
      '--url must be https: over http, everybody on the way could read the secrets (only loopback may be http)',
    ],
    [username + password === '', '--url must hold no user and no password: the token is asked for'],
    [pathname + search + hash === '/', '--url must end after host and port: paths are known here'],
    [
      env['NODE_TLS_REJECT_UNAUTHORIZED'] !== '0',
      'NODE_TLS_REJECT_UNAUTHORIZED=0 is set, so anybody could pose as the service: unset it (NODE_EXTRA_CA_CERTS names a private CA)',
    ],
  ];
  return rules.filter(([holds]) => !holds).map(([, problem]) => problem);
}

export interface Delivery {
  /** Of `--url`; scheme, host and port. */
  origin: string;
  operatorToken: string;
  timeoutMs?: number;
}

/**
 * Onboards through a running service: one request, never repeated and never redirected.
 * @throws Failure that says whether something may have been written.
 */
export async function onboardOverHttp(order: Order, delivery: Delivery): Promise<Onboarded> {
  const { origin } = delivery;
  const answer = await send(order, delivery);
  const { status } = answer;
  const json = parse(answer.text);
  if (status === 201) {
    const onboarded = onboardedReply.safeParse(json);
    if (onboarded.success) return onboarded.data;
    throw unknownOutcome(order.id, `${origin} answered 201, but not in the words of this service`);
  }
  const problem = problemReply.safeParse(json);
  if (problem.success) throw refusedBy(problem.data, order.id, secretsOf(order, delivery));
  if (status >= 300 && status < 400)
    throw new Failure(
      `Not onboarded: ${origin} answered with a redirect (${String(status)}), which is not followed, because the secrets would go along. Give the final address.`,
    );
  if (status >= 400 && status < 500)
    throw new Failure(
      `Not onboarded: ${origin} answered ${String(status)}, but not in the words of this service. Is --url right?`,
    );
  throw unknownOutcome(
    order.id,
    `${origin} answered ${String(status)}, but not in the words of this service`,
  );
}

async function send(order: Order, delivery: Delivery): Promise<{ status: number; text: string }> {
  const { origin, operatorToken, timeoutMs = ONBOARD_TIMEOUT_MS } = delivery;
  try {
    const response = await fetch(new URL('/api/ops/merchants', origin), {
      method: 'POST',
      redirect: 'manual',
      headers: { authorization: `Bearer ${operatorToken}`, 'content-type': 'application/json' },
      body: JSON.stringify(order),
      signal: AbortSignal.timeout(timeoutMs),
    });
    return { status: response.status, text: await readText(response) };
  } catch (error) {
    const reason = reasonOf(error);
    if (NOT_SENT.has(reason))
      throw new Failure(`Not onboarded, nothing was sent: ${origin} cannot be reached (${reason}).`);
    throw unknownOutcome(
      order.id,
      reason === 'TimeoutError'
        ? `${origin} did not answer within ${String(Math.ceil(timeoutMs / 1_000))} s`
        : `the connection to ${origin} broke before the answer was complete (${reason})`,
    );
  }
}

/** At most ANSWER_BYTES_MAX; what comes after that cannot be an answer of ours. */
export async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    total += chunk.length;
    if (total > ANSWER_BYTES_MAX) return '';
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

export function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** fetch wraps the reason as `cause`, sometimes as a list with one code. */
export function reasonOf(error: unknown): string {
  const { cause } = (error ?? {}) as { cause?: unknown };
  return nameOf(cause ?? error);
}

/** A service that sends secrets back in its answer must not get them onto the screen. */
function secretsOf({ credential }: Order, { operatorToken }: Delivery): string[] {
  if (credential === undefined || credential.kind === 'assume-role') return [operatorToken];
  if (credential.kind === 'bedrock-api-key') return [operatorToken, credential.bedrockApiKey];
  const { awsSecretAccessKey, awsSessionToken } = credential;
  return [operatorToken, awsSecretAccessKey, ...(awsSessionToken === undefined ? [] : [awsSessionToken])];
}
