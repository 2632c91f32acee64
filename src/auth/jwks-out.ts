import { createRemoteJWKSet, customFetch } from 'jose';
import type { JWTVerifyGetKey } from 'jose';
import type { Clock } from '../domain/clock.ts';

const BYTES_MAX = 256 * 1024;
const TIMEOUT_MS = 3_000;
/** Between two fetches because of an unknown key id: a flood of them does not become a flood of fetches. */
const COOLDOWN_MS = 30_000;
/** Between any two fetches. jose rests only after a success: without this every token would be a fetch while the issuer is down. */
const PAUSE_MS = 5_000;
const LOOPBACK: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]']);

/**
 * The keys of an issuer, fetched from one URL and kept for ten minutes.
 * @throws TypeError for a URL that is neither https nor on this machine; the configuration refuses the latter in production.
 */
export function remoteKeys(url: string, clock: Clock): JWTVerifyGetKey {
  const { protocol, hostname } = new URL(url);
  if (protocol !== 'https:' && !(protocol === 'http:' && LOOPBACK.has(hostname)))
    throw new TypeError('the URL of a key set must be https, or http on this machine');
  return createRemoteJWKSet(new URL(url), {
    timeoutDuration: TIMEOUT_MS,
    cooldownDuration: COOLDOWN_MS,
    [customFetch]: seldom(clock),
  });
}

/** A clock that was set back ends the pause rather than stretching it. */
function seldom(clock: Clock): typeof fetchBounded {
  let lastAt = -Infinity;
  return async (url, init) => {
    const sinceMs = clock.now() - lastAt;
    if (sinceMs >= 0 && sinceMs < PAUSE_MS) throw new Error('the key set was asked for a moment ago');
    lastAt = clock.now();
    return fetchBounded(url, init);
  };
}

/** No redirects, and no more bytes than a key set can need. */
async function fetchBounded(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, { ...init, redirect: 'error' });
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += (chunk as Uint8Array).byteLength;
    if (length > BYTES_MAX) throw new Error('the key set is too large');
    chunks.push(chunk as Uint8Array);
  }
  return new Response(Buffer.concat(chunks), { status: response.status, headers: response.headers });
}
