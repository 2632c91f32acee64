import { Resolver } from 'node:dns/promises';
import { request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import { isIP } from 'node:net';
import { hostOf, isAllowedAddress, urlProblem } from './webhook-target.ts';
import type { TargetRules } from './webhook-target.ts';

/** Why nothing was answered. Words of ours only: nothing a receiver sent is kept. */
export type SendProblem =
  | 'address not allowed'
  | 'name not found'
  | 'certificate or TLS not accepted'
  | 'connection refused'
  | 'connection lost'
  | 'no answer in time'
  | 'stopped';

export type SendResult = { status: number } | { problem: SendProblem };

export interface OutgoingEvent {
  url: string;
  body: string;
  headers: Readonly<Record<string, string>>;
  /** From 1. Of several addresses of a host each attempt takes the next. */
  attempt: number;
  /** Ends it early. */
  signal: AbortSignal;
}

export interface WebhookSenderOptions {
  rules: TargetRules;
  /** For name, connection, TLS, request and answer together. Milliseconds; default 10,000. */
  timeoutMs?: number;
  /** All addresses of a host, both families; empty when it has none. Default: DNS as the system configures it, without its hosts file. */
  resolve?: (host: string, signal: AbortSignal) => Promise<readonly string[]>;
  /** Where an address is, for tests that have no internet: what is connected to instead. */
  dial?: (address: string) => string;
  /** PEM of certificate authorities to believe instead of the usual ones. */
  ca?: string;
}

const TIMEOUT_MS = 10_000;
/** Of an answer's body, which nobody reads. */
const ANSWER_BYTES_MAX = 65_536;

/**
 * Sends events to the receivers that merchants named: the one place where the service calls an address that came from outside.
 * The name is resolved here, every address of it must be public, and the connection goes to the very address that was checked: there is no
 * second lookup that could answer otherwise (DNS rebinding). No redirects, no proxy, no connection is used twice.
 */
export class WebhookSender {
  readonly #options: WebhookSenderOptions;

  constructor(options: WebhookSenderOptions) {
    this.#options = options;
  }

  /** Never throws. Cost: one lookup, one connection. */
  async send(event: OutgoingEvent): Promise<SendResult> {
    const timeout = AbortSignal.timeout(this.#options.timeoutMs ?? TIMEOUT_MS);
    const signal = AbortSignal.any([timeout, event.signal]);
    try {
      const url = new URL(event.url);
      const address = await this.#addressOf(url, event.attempt, signal);
      return typeof address === 'object'
        ? address
        : { status: await this.#post(url, address, event, signal) };
    } catch (error) {
      if (event.signal.aborted) return { problem: 'stopped' };
      return { problem: timeout.aborted ? 'no answer in time' : problemOf(error) };
    }
  }

  async #addressOf(
    url: URL,
    attempt: number,
    signal: AbortSignal,
  ): Promise<string | { problem: SendProblem }> {
    const { rules, resolve = resolveByDns } = this.#options;
    if (urlProblem(url.href, rules) !== undefined) return { problem: 'address not allowed' };
    const host = hostOf(url);
    const addresses = isIP(host) === 0 ? await resolve(host, signal) : [host];
    signal.throwIfAborted();
    // One that is not public spoils them all: a name that points inside and outside is meant to deceive.
    if (!addresses.every((address) => isAllowedAddress(address, url, rules)))
      return { problem: 'address not allowed' };
    return addresses[(attempt - 1) % addresses.length] ?? { problem: 'name not found' };
  }

  /** @param address an IP address: what is connected to, while TLS and the Host header speak of the URL's host. */
  #post(url: URL, address: string, event: OutgoingEvent, signal: AbortSignal): Promise<number> {
    const host = hostOf(url);
    const options = {
      host: this.#options.dial?.(address) ?? address,
      port: url.port === '' ? 443 : Number(url.port),
      path: `${url.pathname}${url.search}`,
      method: 'POST',
      agent: false as const,
      signal,
      headers: {
        ...event.headers,
        host: url.host,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(event.body),
      },
    };
    return new Promise((resolve, reject) => {
      const request =
        url.protocol === 'http:'
          ? plainRequest(options)
          : secureRequest({
              ...options,
              // No name for an address; the certificate is then compared with the address.
              servername: isIP(host) === 0 ? host : '',
              minVersion: 'TLSv1.2',
              ...(this.#options.ca !== undefined && { ca: this.#options.ca }),
            });
      let status: number | undefined;
      // Once there is a status it stands, however the rest of the answer ends.
      const over = (error: Error) => {
        if (status === undefined) reject(error);
        else resolve(status);
      };
      request.on('error', over).on('close', () => {
        over(new Error('closed without an answer'));
      });
      request.on('response', (response) => {
        status = response.statusCode ?? 0;
        let bytes = 0;
        // Nobody reads the body; it is let through for manners, up to a bound.
        response
          .on('error', () => undefined)
          .on('data', (piece: Buffer) => {
            bytes += piece.length;
            if (bytes > ANSWER_BYTES_MAX) request.destroy();
          });
      });
      request.end(event.body);
    });
  }
}

/** c-ares, not the system's resolver: it can be cancelled, and knows no hosts file and no search domains. */
async function resolveByDns(host: string, signal: AbortSignal): Promise<string[]> {
  const resolver = new Resolver({ timeout: 2_000, tries: 2 });
  const cancel = () => {
    resolver.cancel();
  };
  signal.addEventListener('abort', cancel, { once: true });
  try {
    const found = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    return found.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

function problemOf(error: unknown): SendProblem {
  const code = (error as { code?: unknown }).code;
  if (code === 'ECONNREFUSED') return 'connection refused';
  const ofTls = /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|EPROTO|HOSTNAME_MISMATCH)/;
  return typeof code === 'string' && ofTls.test(code) ? 'certificate or TLS not accepted' : 'connection lost';
}
