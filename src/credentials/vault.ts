import type { Actor, AskedAbout } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { StoredMaterial } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import type { CredentialStore } from './credential-store.ts';
import type { OpenedCache } from './opened-cache.ts';
import type { RoleSessions } from './role-sessions.ts';
import type { SecretPlace, SecretVault } from './secret-vault.ts';
import type { CurrentVersion } from './stored-credential.ts';

export interface VaultParts {
  store: Pick<CredentialStore, 'current' | 'recordAsking' | 'recordOpening' | 'recordStaleUse'>;
  secrets: Pick<SecretVault, 'open'>;
  opened: OpenedCache;
  roleSessions: Pick<RoleSessions, 'evict'>;
  clock: Clock;
}

/** Rows of a few hundred bytes. */
const VERSIONS_MAX = 20_000;
const VERSION_REMEMBERED_MS = 60_000;

/** The use of stored credentials: which version, opened. How they come, are frozen and go is credential-keeper.ts. */
export class Vault {
  readonly #parts: VaultParts;
  /** Which version was current when a call last asked. */
  readonly #versions: SingleFlightCache<CurrentVersion>;

  constructor(parts: VaultParts) {
    this.#parts = parts;
    this.#versions = new SingleFlightCache({
      max: VERSIONS_MAX,
      ttlMs: VERSION_REMEMBERED_MS,
      clock: parts.clock,
    });
  }

  /**
   * Which version is current, where and of which account, as it was at most a minute ago. Only for calls whose admission asks whether the
   * version is still current.
   * @param anew when a refusal may come from what was remembered.
   * @throws ServiceError credential.not_found | ledger.unavailable. Cost: one transaction a minute.
   */
  current(merchantId: MerchantId, credentialId: CredentialId, anew: boolean): Promise<CurrentVersion> {
    const { store } = this.#parts;
    const key = `${merchantId}/${credentialId}`;
    // What was opened, and sessions of roles, belong to one version: the current one's are as good as before.
    if (anew) this.forgetCurrent(merchantId, credentialId);
    return this.#versions.get(key, () => store.current(merchantId, credentialId));
  }

  /**
   * Opens one version for use, which `current` named in the same request.
   * Never falls back: a credential that is missing, replaced or unreadable is an error.
   * @throws ServiceError merchant.not_active | credential.not_found | credential.not_usable | credential.unreadable | vault.unavailable |
   *   ledger.unavailable
   * Cost: nothing while cached (5 minutes, 1 unused); else one transaction, one KMS Decrypt and one Secrets Manager read. While those do not
   * answer, what was opened in the last 20 minutes serves, at the cost of a transaction that records each use.
   */
  open(actor: Actor, merchantId: MerchantId, credentialId: CredentialId, version: number) {
    const place = { merchantId, credentialId, version };
    return this.#parts.opened.get(place, {
      open: () => this.reopen(actor, merchantId, credentialId, version),
      recordStaleUse: () => this.#parts.store.recordStaleUse(merchantId, actor, credentialId, version),
    });
  }

  /**
   * For what the service asks AWS by itself with what it opens: call this before, each time. What is remembered says nothing of today.
   * @throws ServiceError merchant.not_active | credential.not_found | credential.not_usable | ledger.unavailable. Cost: one transaction.
   */
  recordAsking(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    about: AskedAbout,
  ): Promise<void> {
    return this.#parts.store.recordAsking(merchantId, actor, credentialId, about);
  }

  /** Whether `open` would ask nobody. */
  holds(place: SecretPlace): boolean {
    return this.#parts.opened.has(place);
  }

  /**
   * The same without what is remembered: proves that the vault can still open it. The record of the opening is committed before anything is
   * unwrapped; without it nothing is.
   * @throws ServiceError as `open`. Cost: one transaction, one KMS Decrypt and one Secrets Manager read.
   */
  async reopen(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    version: number,
  ): Promise<StoredMaterial> {
    const { store, secrets, opened } = this.#parts;
    const sealed = await store.recordOpening(merchantId, actor, credentialId, version);
    const place = { merchantId, credentialId, version };
    return secrets.open(place, sealed).catch((error: unknown) => {
      opened.heed(place, error);
      throw error;
    });
  }

  /** Asks anew which version is current: another one may be. What was opened stays open. */
  forgetCurrent(merchantId: MerchantId, credentialId: CredentialId): void {
    this.#versions.forget(`${merchantId}/${credentialId}`);
  }

  /** Forgets what this process remembers of a credential, or of all of a merchant's. What holds is read anew. */
  forget(merchantId: MerchantId, credentialId?: CredentialId): void {
    const { opened, roleSessions } = this.#parts;
    opened.evict(merchantId, credentialId);
    roleSessions.evict(merchantId, credentialId);
    if (credentialId === undefined) this.#versions.evict(`${merchantId}/`);
    else this.#versions.forget(`${merchantId}/${credentialId}`);
  }
}
