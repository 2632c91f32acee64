import type { Actor } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { AwsIdentity, StoredMaterial } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { newCredentialId } from '../domain/ids.ts';
import type { CredentialStore } from './credential-store.ts';
import type { FreezeChange, FreezeStore } from './freeze-store.ts';
import type { IdentityCheck } from './identity.ts';
import type { LeftoverStore } from './leftover-store.ts';
import { keyHint } from './material.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import type { OpenedCache } from './opened-cache.ts';
import type { RoleProof } from './role-proof.ts';
import type { RoleSessions } from './role-sessions.ts';
import { newExternalId } from './role.ts';
import { PreparedCredential } from './prepared-credential.ts';
import type { CredentialInput } from './prepared-credential.ts';
import type { SecretVault } from './secret-vault.ts';
import type { CurrentVersion, StoredCredential, TestResult } from './stored-credential.ts';

export interface VaultParts {
  store: CredentialStore;
  leftovers: LeftoverStore;
  freezer: Pick<FreezeStore, 'change'>;
  secrets: Pick<SecretVault, 'seal' | 'open' | 'discard'>;
  identity: IdentityCheck;
  opened: OpenedCache;
  roleSessions: Pick<RoleSessions, 'evict'>;
  roleProof: Pick<RoleProof, 'prove'>;
  clock: Clock;
  /** Told of ciphertexts that stay behind in Secrets Manager: a cost, not a danger, because their keys are gone. */
  onLeftover: (secretName: string, cause: unknown) => void;
}

/** Rows of a few hundred bytes. */
const VERSIONS_MAX = 20_000;
const VERSION_REMEMBERED_MS = 60_000;

/** A test that the credential passed. */
export interface PassedTest {
  credential: StoredCredential;
  identity: AwsIdentity;
}

/** Merchants' credentials: in, used, tested, out. Never back. */
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
   * Everything of storing that is not the database's: AWS is asked who the credential is, then it is sealed.
   * The caller commits the result in a transaction of its own, or abandons it.
   * @throws ServiceError region.not_allowed | credential.refused_by_aws | upstream.unreachable | vault.unavailable
   * Cost: one call each of STS (or Bedrock), KMS and Secrets Manager.
   */
  async prepare(merchantId: MerchantId, input: CredentialInput): Promise<PreparedCredential> {
    const { identity, leftovers, secrets } = this.#parts;
    const { material, region } = input;
    const id = newCredentialId();
    if (material.kind === 'assume-role') return this.#prepareRole(merchantId, id, input);
    const { accountId, arn } = await identity.checkCredential(material, region);
    const place = { merchantId, credentialId: id, version: 1 };
    const sealed = await secrets.seal(place, material, (secretName) =>
      leftovers.announce({ merchantId, secretName }),
    );
    const { kind } = material;
    const row = {
      id,
      name: input.name,
      kind,
      region,
      accountId,
      principalArn: arn,
      keyHint: keyHint(material),
      externalId: undefined,
      sealed,
    };
    return new PreparedCredential(merchantId, row, input.makeDefault, this.#parts);
  }

  /**
   * Stores a credential.
   * @throws ServiceError as `prepare`, or ledger.unavailable: then GET /credentials tells whether it was stored.
   */
  async store(actor: Actor, merchantId: MerchantId, input: CredentialInput): Promise<StoredCredential> {
    const { store } = this.#parts;
    const prepared = await this.prepare(merchantId, input);
    try {
      await store.inTransaction(merchantId, (tx) => prepared.commit(tx, actor));
    } catch (error) {
      await prepared.abandon(error);
      throw error;
    }
    return store.get(merchantId, prepared.id);
  }

  list(merchantId: MerchantId): Promise<StoredCredential[]> {
    return this.#parts.store.list(merchantId);
  }

  /** @throws ServiceError credential.not_found */
  get(merchantId: MerchantId, credentialId: CredentialId): Promise<StoredCredential> {
    return this.#parts.store.get(merchantId, credentialId);
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
   * @throws ServiceError credential.not_found | credential.not_usable | credential.unreadable | vault.unavailable | ledger.unavailable
   * Cost: nothing while cached (5 minutes, 1 unused); else one transaction, one KMS Decrypt and one Secrets Manager read. While those do not
   * answer, what was opened in the last 20 minutes serves, at the cost of a transaction that records each use.
   */
  open(actor: Actor, merchantId: MerchantId, credentialId: CredentialId, version: number) {
    const place = { merchantId, credentialId, version };
    return this.#parts.opened.get(place, {
      open: () => this.#open(actor, merchantId, credentialId, version),
      recordStaleUse: () => this.#parts.store.recordStaleUse(merchantId, actor, credentialId, version),
    });
  }

  /**
   * The same without what is remembered: proves that the vault can still open it.
   * @throws ServiceError as `open`. Cost: one transaction, one KMS Decrypt and one Secrets Manager read.
   */
  reopen(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    version: number,
  ): Promise<StoredMaterial> {
    return this.#open(actor, merchantId, credentialId, version);
  }

  /** Asks anew which version is current: another one may be. What was opened stays open. */
  forgetCurrent(merchantId: MerchantId, credentialId: CredentialId): void {
    this.#versions.forget(`${merchantId}/${credentialId}`);
  }

  /**
   * Deletes a credential. When this returns its secret is beyond anyone's reach; the ciphertext is then removed as far as AWS lets us.
   * @throws ServiceError credential.not_found | ledger.unavailable
   */
  async delete(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<void> {
    const { store } = this.#parts;
    const secretNames = await store.delete(merchantId, actor, credentialId);
    this.forget(merchantId, credentialId);
    await this.discard(secretNames);
  }

  /**
   * Stops a credential until it is thawed, or thaws it. When this returns no call starts with it on any replica. Twice is once.
   * @throws ServiceError credential.not_found | credential.not_usable when it is neither active nor frozen | ledger.unavailable
   */
  async freeze(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    change: FreezeChange,
  ): Promise<StoredCredential> {
    const { freezer, store } = this.#parts;
    await freezer.change(actor, merchantId, credentialId, change);
    this.forget(merchantId, credentialId);
    return store.get(merchantId, credentialId);
  }

  /** Removes ciphertexts whose keys are destroyed, as far as AWS lets us: one that stays is noise, and told of. */
  async discard(secretNames: readonly string[]): Promise<void> {
    const { secrets, onLeftover } = this.#parts;
    for (const secretName of secretNames) {
      await secrets.discard(secretName, 'in-7-days').catch((error: unknown) => {
        onLeftover(secretName, error);
      });
    }
  }

  /** Forgets what this process remembers of a credential, or of all of a merchant's. What holds is read anew. */
  forget(merchantId: MerchantId, credentialId?: CredentialId): void {
    const { opened, roleSessions } = this.#parts;
    opened.evict(merchantId, credentialId);
    roleSessions.evict(merchantId, credentialId);
    if (credentialId === undefined) this.#versions.evict(`${merchantId}/`);
    else this.#versions.forget(`${merchantId}/${credentialId}`);
  }

  /**
   * Uses the credential from now on where a request names none.
   * @throws ServiceError credential.not_found | ledger.unavailable
   */
  async makeDefault(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
  ): Promise<StoredCredential> {
    const { store } = this.#parts;
    await store.inTransaction(merchantId, (tx) => store.setDefault(merchantId, tx, actor, credentialId));
    return store.get(merchantId, credentialId);
  }

  /**
   * Opens a credential as a call would, cache left out, and asks AWS who it is; a role is proven again. The outcome is recorded, good or bad.
   * @throws ServiceError as `open` and `prepare`; credential.refused_by_aws also when it is of another account than the one it was stored for.
   */
  async test(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<PassedTest> {
    const { store } = this.#parts;
    const stored = await store.get(merchantId, credentialId);
    const identity = await this.#askAws(actor, merchantId, stored).catch(async (error: unknown) => {
      const failed = failedTest(error);
      if (failed !== undefined) await store.markTested(merchantId, actor, credentialId, failed);
      // It may have become unsafe.
      this.forget(merchantId, credentialId);
      throw error;
    });
    await store.markTested(merchantId, actor, credentialId, { result: 'ok', outcome: 'allowed' });
    return { credential: await store.get(merchantId, credentialId), identity };
  }

  /** @throws ServiceError credential.refused_by_aws for another account: it would get the merchant's prompts, and pay its bills. */
  async #askAws(actor: Actor, merchantId: MerchantId, stored: StoredCredential): Promise<AwsIdentity> {
    const { id: credentialId, region, version } = stored;
    const material = await this.#open(actor, merchantId, credentialId, version);
    const found =
      material.kind === 'assume-role'
        ? await this.#parts.roleProof.prove({ actor, merchantId, credentialId, region }, material)
        : await this.#parts.identity.checkCredential(material, region);
    if (stored.accountId === undefined || stored.accountId === found.accountId) return found;
    throw new ServiceError(
      'credential.refused_by_aws',
      'This credential was stored for one AWS account and now belongs to another. Delete it, and store it again if that is meant.',
      { extra: { refusal: 'account-changed' } },
    );
  }

  /** Nothing to ask AWS and nothing to seal: the role cannot be there yet. */
  #prepareRole(merchantId: MerchantId, id: CredentialId, { name, region }: CredentialInput) {
    const row = {
      id,
      name,
      kind: 'assume-role' as const,
      region,
      accountId: undefined,
      principalArn: undefined,
      keyHint: 'not activated',
      externalId: newExternalId(),
      sealed: undefined,
    };
    return new PreparedCredential(merchantId, row, false, this.#parts);
  }

  /** The record of the opening is committed before anything is unwrapped; without it nothing is. */
  async #open(
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
}

/** What to record of a failed test; undefined when the database itself failed, or the credential went away meanwhile. */
function failedTest(error: unknown): { result: TestResult; outcome: 'denied' | 'failed' } | undefined {
  const { code, options } = error instanceof ServiceError ? error : new ServiceError('internal', '');
  if (code === 'ledger.unavailable' || code === 'credential.not_found') return undefined;
  if (code === 'credential.unsafe') return { result: code, outcome: 'denied' };
  if (code !== 'credential.refused_by_aws') return { result: code, outcome: 'failed' };
  const accountChanged = options.extra?.['refusal'] === 'account-changed';
  return { result: accountChanged ? 'account-changed' : code, outcome: 'denied' };
}
