import type { Clock } from '../domain/clock.ts';
import type { StoredMaterial } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import { within } from '../memory/within.ts';
import { VaultRefusal, VaultSilence } from './secret-vault.ts';
import type { SecretPlace } from './secret-vault.ts';
import { StaleCopies } from './stale-copies.ts';

export interface OpenedCacheOptions {
  clock: Clock;
  /** Default 10_000. */
  max?: number;
  /** The longest that a disabled KMS key can go unnoticed while KMS answers. 0 keeps nothing, stale copies included. Default 300_000. */
  ttlMs?: number;
  /** Default 60_000. */
  idleMs?: number;
  /** How much longer than `ttlMs` a credential may be used while the vault is throttled, fails or is silent. Default 900_000. */
  staleMs?: number;
  /** How long a caller waits for the vault when there is a stale copy. Default 1_000. */
  patienceMs?: number;
}

/** A vault that failed is asked again this soon; until then stale copies serve at once. */
const PAUSE_MS = 5_000;

/** How to get a credential that is not in memory. */
export interface Opening {
  /** Asks the vault. */
  open: () => Promise<StoredMaterial>;
  /** Records the use of a stale copy. @throws when its version is not the current one any more, or nobody can say. */
  recordStaleUse: () => Promise<void>;
}

/**
 * Opened credentials, by merchant, credential and version. That a version is still current is decided by Postgres for every call (the
 * statement that admits it), so what is here after a revocation or a rotation signs nothing.
 */
export class OpenedCache implements Disposable {
  readonly #cache: SingleFlightCache<StoredMaterial>;
  readonly #copies: StaleCopies;
  readonly #patienceMs: number;

  constructor({ clock, max = 10_000, ttlMs = 300_000, idleMs = 60_000, ...stale }: OpenedCacheOptions) {
    const { staleMs = 900_000, patienceMs = 1_000 } = stale;
    this.#cache = new SingleFlightCache({ max, ttlMs, idleMs, clock });
    const keptMs = ttlMs === 0 || staleMs === 0 ? 0 : ttlMs + staleMs;
    this.#copies = new StaleCopies({ clock, max, keptMs, pauseMs: PAUSE_MS });
    this.#patienceMs = patienceMs;
  }

  /** Whether the vault would not be asked. */
  has(place: SecretPlace): boolean {
    return this.#cache.has(nameOf(place));
  }

  /** @throws what `opening` throws. A vault that does not answer is no error as long as there is a copy that may be used. */
  async get(place: SecretPlace, opening: Opening): Promise<StoredMaterial> {
    const name = nameOf(place);
    const held = this.#cache.held(name);
    if (held !== undefined) return held;
    const state = this.#copies.state(name);
    if (state === 'none') return this.#load(name, opening);
    if (state === 'spare') {
      try {
        return await within(this.#patienceMs, this.#load(name, opening), notInTime);
      } catch (error) {
        if (!(error instanceof VaultSilence)) throw error;
        this.#copies.pause(name);
      }
    }
    await opening.recordStaleUse();
    // What was refused meanwhile is gone.
    return this.#copies.open(name) ?? this.#load(name, opening);
  }

  /** Forgets one version. */
  forget(place: SecretPlace): void {
    const name = nameOf(place);
    this.#cache.forget(name);
    this.#copies.forget(name);
  }

  /** What the vault said of a credential: a refusal is the end of what is in memory, of one that meets the key, of everything. */
  heed(place: SecretPlace, error: unknown): void {
    if (!(error instanceof VaultRefusal)) return;
    if (error.of === 'key') this.#evict('');
    else this.evict(place.merchantId, place.credentialId);
  }

  /** Forgets all versions of a credential, or all credentials of a merchant. */
  evict(merchantId: MerchantId, credentialId?: CredentialId): void {
    this.#evict(credentialId === undefined ? `${merchantId}/` : prefixOf(merchantId, credentialId));
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
    this.#copies[Symbol.dispose]();
  }

  #load(name: string, { open }: Opening): Promise<StoredMaterial> {
    return this.#cache.get(name, async () => {
      const credential = await open();
      // What was evicted meanwhile is not kept: neither here nor there.
      if (this.#cache.has(name)) this.#copies.keep(name, credential);
      return credential;
    });
  }

  #evict(prefix: string): void {
    this.#cache.evict(prefix);
    this.#copies.evict(prefix);
  }
}

function nameOf({ merchantId, credentialId, version }: SecretPlace): string {
  return `${prefixOf(merchantId, credentialId)}${String(version)}`;
}

/** Neither id can hold a slash, so no prefix is the beginning of another's. */
function prefixOf(merchantId: MerchantId, credentialId: CredentialId): string {
  return `${merchantId}/${credentialId}/`;
}

function notInTime(): VaultSilence {
  return new VaultSilence('The vault does not answer in time.');
}
