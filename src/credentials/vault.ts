import type { Actor } from '../domain/audit.ts';
import type { Clock } from '../domain/clock.ts';
import type { AwsCredential, AwsIdentity } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { newCredentialId } from '../domain/ids.ts';
import type { CredentialStore } from './credential-store.ts';
import type { IdentityCheck } from './identity.ts';
import { keyHint } from './material.ts';
import { SingleFlightCache } from '../memory/single-flight-cache.ts';
import type { OpenedCache } from './opened-cache.ts';
import { PreparedCredential } from './prepared-credential.ts';
import type { CredentialInput } from './prepared-credential.ts';
import type { SecretVault } from './secret-vault.ts';
import type { CurrentVersion, StoredCredential, TestResult } from './stored-credential.ts';

export interface VaultParts {
  store: CredentialStore;
  secrets: Pick<SecretVault, 'seal' | 'open' | 'discard'>;
  identity: IdentityCheck;
  opened: OpenedCache;
  clock: Clock;
  /** Told of ciphertexts that stayed behind in Secrets Manager: a cost, not a danger, because their keys are gone. */
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
    const { store, secrets, identity, onLeftover } = this.#parts;
    const { accountId, arn } = await identity.checkCredential(input.material, input.region);
    const id = newCredentialId();
    const sealed = await secrets.seal({ merchantId, credentialId: id, version: 1 }, input.material);
    const { kind } = input.material;
    const { name, region, makeDefault } = input;
    const row = {
      id,
      name,
      kind,
      region,
      accountId,
      principalArn: arn,
      keyHint: keyHint(input.material),
      sealed,
    };
    return new PreparedCredential(merchantId, row, makeDefault, { store, secrets, onLeftover });
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
    if (anew) this.forget(merchantId, credentialId);
    return this.#versions.get(key, () => store.current(merchantId, credentialId));
  }

  /**
   * Opens one version for use, which `current` named in the same request.
   * Never falls back: a credential that is missing, replaced or unreadable is an error.
   * @throws ServiceError credential.not_found | credential.not_usable | credential.unreadable | vault.unavailable | ledger.unavailable
   * Cost: nothing while cached (5 minutes, 1 unused); else one transaction, one KMS Decrypt and one Secrets Manager read.
   */
  open(actor: Actor, merchantId: MerchantId, credentialId: CredentialId, version: number) {
    const place = { merchantId, credentialId, version };
    return this.#parts.opened.get(place, () => this.#open(actor, merchantId, credentialId, version));
  }

  /** Asks anew which version is current: another one may be. */
  forget(merchantId: MerchantId, credentialId: CredentialId): void {
    this.#versions.forget(`${merchantId}/${credentialId}`);
  }

  /**
   * Deletes a credential. When this returns its secret is beyond anyone's reach; the ciphertext is then removed as far as AWS lets us.
   * @throws ServiceError credential.not_found | ledger.unavailable
   */
  async delete(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<void> {
    const { store, secrets, opened, onLeftover } = this.#parts;
    const secretNames = await store.delete(merchantId, actor, credentialId);
    opened.evict(merchantId, credentialId);
    this.forget(merchantId, credentialId);
    for (const secretName of secretNames) {
      await secrets.discard(secretName, 'in-7-days').catch((error: unknown) => {
        onLeftover(secretName, error);
      });
    }
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
   * Opens a credential as a call would, cache left out, and asks AWS who it is. The outcome is recorded, good or bad.
   * @throws ServiceError as `open` and `prepare`; credential.refused_by_aws also when it is of another account than the one it was stored for.
   */
  async test(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<PassedTest> {
    const { store } = this.#parts;
    const stored = await store.get(merchantId, credentialId);
    const identity = await this.#askAws(actor, merchantId, stored).catch(async (error: unknown) => {
      const failed = failedTest(error);
      if (failed !== undefined) await store.markTested(merchantId, actor, credentialId, failed);
      throw error;
    });
    await store.markTested(merchantId, actor, credentialId, { result: 'ok', outcome: 'allowed' });
    return { credential: await store.get(merchantId, credentialId), identity };
  }

  /** @throws ServiceError credential.refused_by_aws for another account: it would get the merchant's prompts, and pay its bills. */
  async #askAws(actor: Actor, merchantId: MerchantId, stored: StoredCredential): Promise<AwsIdentity> {
    const credential = await this.#open(actor, merchantId, stored.id, stored.version);
    const found = await this.#parts.identity.checkCredential(credential, stored.region);
    if (stored.accountId === undefined || stored.accountId === found.accountId) return found;
    throw new ServiceError(
      'credential.refused_by_aws',
      'This credential was stored for one AWS account and now belongs to another. Delete it, and store it again if that is meant.',
      { extra: { refusal: 'account-changed' } },
    );
  }

  /** The record of the opening is committed before anything is unwrapped; without it nothing is. */
  async #open(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    version: number,
  ): Promise<AwsCredential> {
    const { store, secrets } = this.#parts;
    const sealed = await store.recordOpening(merchantId, actor, credentialId, version);
    return secrets.open({ merchantId, credentialId, version }, sealed);
  }
}

/** What to record of a failed test; undefined when the database itself failed, or the credential went away meanwhile. */
function failedTest(error: unknown): { result: TestResult; outcome: 'denied' | 'failed' } | undefined {
  const { code, options } = error instanceof ServiceError ? error : new ServiceError('internal', '');
  if (code === 'ledger.unavailable' || code === 'credential.not_found') return undefined;
  if (code !== 'credential.refused_by_aws') return { result: code, outcome: 'failed' };
  const accountChanged = options.extra?.['refusal'] === 'account-changed';
  return { result: accountChanged ? 'account-changed' : code, outcome: 'denied' };
}
