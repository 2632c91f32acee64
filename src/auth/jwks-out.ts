import { createLocalJWKSet, errors } from 'jose';
import type { JSONWebKeySet, JWTVerifyGetKey } from 'jose';
import type { Clock } from '../domain/clock.ts';
import { ServiceError } from '../domain/errors.ts';

export interface RemoteKeysOptions {
  /** Counts spans: one that nobody sets. */
  clock: Clock;
  /** The first fetch that failed after one that went well, or after the start. */
  onAway: (error: unknown) => void;
  /** The first one that went well after that. */
  onBack: () => void;
}

const BYTES_MAX = 256 * 1024;
const TIMEOUT_MS = 3_000;
/** How old a set may be and nobody asks for a newer one. */
const FRESH_MS = 600_000;
/** How old it may be while the issuer is away: as old as a token may be. A key that was removed before the outage may serve that long. */
const KEPT_MS = 3_600_000;
/** How old it must be to be fetched for an unknown key id: a flood of them does not become a flood of fetches. */
const COOLDOWN_MS = 30_000;
/** Between any two fetches: without this every token would be a fetch while the issuer is away. */
const PAUSE_MS = 5_000;
/** After a failure: whose key is held waits for no further attempt. */
const IMPATIENT_MS = 30_000;
const LOOPBACK: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]']);

/**
 * The keys of an issuer, fetched from one URL and kept for ten minutes; while it cannot be fetched, for an hour.
 * The result throws ServiceError auth.unavailable where nobody can say which key a token's is, and jose's errors where it is none of them.
 * @throws TypeError for a URL that is neither https nor on this machine; the configuration refuses the latter in production.
 */
export function remoteKeys(url: string, options: RemoteKeysOptions): JWTVerifyGetKey {
  const { protocol, hostname } = new URL(url);
  if (protocol !== 'https:' && !(protocol === 'http:' && LOOPBACK.has(hostname)))
    throw new TypeError('the URL of a key set must be https, or http on this machine');
  const set = new RemoteKeySet(url, options);
  return (header, token) => set.find(header, token);
}

class RemoteKeySet {
  readonly #url: string;
  readonly #options: RemoteKeysOptions;
  #held: { keys: JWTVerifyGetKey; at: number } | undefined;
  #fetching: Promise<void> | undefined;
  #askedAt = -Infinity;
  /** The last failure, if nothing went well since. */
  #failedAt: number | undefined;

  constructor(url: string, options: RemoteKeysOptions) {
    this.#url = url;
    this.#options = options;
  }

  async find(...[header, token]: Parameters<JWTVerifyGetKey>): Promise<Awaited<ReturnType<JWTVerifyGetKey>>> {
    if (!this.#isYounger(FRESH_MS)) await this.#renewed();
    try {
      return await this.#keys(KEPT_MS)(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || this.#isYounger(COOLDOWN_MS)) throw error;
      await this.#renew();
      // Of an older set nobody knows whether the issuer has added this key since.
      return this.#keys(COOLDOWN_MS)(header, token);
    }
  }

  #keys(youngerThanMs: number): JWTVerifyGetKey {
    if (this.#held !== undefined && this.#isYounger(youngerThanMs)) return this.#held.keys;
    // Without a cause: it was told once, and not for each request.
    throw new ServiceError(
      'auth.unavailable',
      'The keys of the issuer of this token cannot be fetched, so nobody can say whether it is good. Nothing was done; try again shortly.',
      { retryAfterSeconds: PAUSE_MS / 1_000 },
    );
  }

  #isYounger(ms: number): boolean {
    return this.#held !== undefined && this.#options.clock.now() - this.#held.at < ms;
  }

  /** Waits for a newer set, unless there is one that will do and it is known that waiting is in vain. */
  async #renewed(): Promise<void> {
    const renewal = this.#renew();
    const isAway = this.#failedAt !== undefined && this.#options.clock.now() - this.#failedAt < IMPATIENT_MS;
    if (!isAway || !this.#isYounger(KEPT_MS)) await renewal;
  }

  /** One at a time, and seldom. Never throws: what came of it is what is held. */
  async #renew(): Promise<void> {
    const isSoon = this.#options.clock.now() - this.#askedAt < PAUSE_MS;
    if (this.#fetching === undefined && isSoon) return;
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined;
    });
    await this.#fetching;
  }

  async #fetch(): Promise<void> {
    const { clock, onAway, onBack } = this.#options;
    const wasAway = this.#failedAt !== undefined;
    this.#askedAt = clock.now();
    try {
      this.#held = { keys: createLocalJWKSet(await fetchBounded(this.#url)), at: clock.now() };
      this.#failedAt = undefined;
      if (wasAway) onBack();
    } catch (error) {
      this.#failedAt = clock.now();
      if (!wasAway) onAway(error);
    }
  }
}

/** An answer that is no key set. */
class KeySetError extends Error {
  override readonly name = 'KeySetError';
  readonly code: string;

  constructor(code: string) {
    super(`no key set came: ${code}`);
    this.code = code;
  }
}

/** No redirects, and no more bytes than a key set can need. What it comes to is looked at by jose. */
async function fetchBounded(url: string): Promise<JSONWebKeySet> {
  const response = await fetch(url, {
    headers: { accept: 'application/json, application/jwk-set+json' },
    redirect: 'error',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += (chunk as Uint8Array).byteLength;
    if (length > BYTES_MAX) throw new KeySetError('too-large');
    chunks.push(chunk as Uint8Array);
  }
  if (response.status !== 200) throw new KeySetError(`status-${String(response.status)}`);
  return JSON.parse(Buffer.concat(chunks).toString()) as JSONWebKeySet;
}
