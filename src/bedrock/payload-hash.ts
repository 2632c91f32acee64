import { createHash } from 'node:crypto';

/**
 * Bytes. Up to here hashing on the event loop (about 0.1 to 0.6 ms) costs less than handing the body to a thread;
 * 25 MB would stall every other call for 66 ms.
 */
const INLINE_BYTES_MAX = 256 * 1024;

/** SHA-256 of a body in lower-case hex, as `x-amz-content-sha256` wants it. Large bodies are hashed on a thread of libuv's pool. */
export async function payloadHash(body: Uint8Array): Promise<string> {
  if (body.byteLength <= INLINE_BYTES_MAX) return createHash('sha256').update(body).digest('hex');
  return Buffer.from(await crypto.subtle.digest('SHA-256', body)).toString('hex');
}
