import type { Clock } from '../domain/clock.ts';
import type { AwsCredential } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import type { SecretPlace } from './secret-vault.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';

export interface OpenedCacheOptions {
  clock: Clock;
  /** Default 10_000. */
  max?: number;
  /** The longest that a disabled KMS key can go unnoticed. Default 300_000. */
  ttlMs?: number;
  /** Default 60_000. */
  idleMs?: number;
}

/**
 * Opened credentials, by merchant, credential and version. That a version is still current is decided by Postgres for every call
 * (resolve.ts asks, admission asks again), so nothing here outlives a revocation or a rotation.
 */
export class OpenedCache implements Disposable {
  readonly #cache: SingleFlightCache<AwsCredential>;

  constructor({ clock, max = 10_000, ttlMs = 300_000, idleMs = 60_000 }: OpenedCacheOptions) {
    this.#cache = new SingleFlightCache({ max, ttlMs, idleMs, clock });
  }

  get({ merchantId, credentialId, version }: SecretPlace, open: () => Promise<AwsCredential>) {
    return this.#cache.get(`${prefixOf(merchantId, credentialId)}${String(version)}`, open);
  }

  /** Forgets one version. */
  forget({ merchantId, credentialId, version }: SecretPlace): void {
    this.#cache.forget(`${prefixOf(merchantId, credentialId)}${String(version)}`);
  }

  /** Forgets all versions of a credential. */
  evict(merchantId: MerchantId, credentialId: CredentialId): void {
    this.#cache.evict(prefixOf(merchantId, credentialId));
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
  }
}

/** Neither id can hold a slash, so no prefix is the beginning of another's. */
function prefixOf(merchantId: MerchantId, credentialId: CredentialId): string {
  return `${merchantId}/${credentialId}/`;
}
