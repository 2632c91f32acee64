import { askingAws } from '../domain/audit.ts';
import type { Actor, AuditTrail } from '../domain/audit.ts';
import type { AwsIdentity } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { newCredentialId } from '../domain/ids.ts';
import { endsUse } from './credential-state.ts';
import type { CredentialStore } from './credential-store.ts';
import type { FreezeChange, FreezeStore } from './freeze-store.ts';
import type { IdentityCheck } from './identity.ts';
import type { Leftovers } from './leftovers.ts';
import { keyHint } from './material.ts';
import { PreparedCredential } from './prepared-credential.ts';
import type { CredentialInput } from './prepared-credential.ts';
import type { RoleProof } from './role-proof.ts';
import { newExternalId } from './role.ts';
import type { SecretVault } from './secret-vault.ts';
import type { StoredCredential, TestResult } from './stored-credential.ts';
import type { Vault } from './vault.ts';

export interface CredentialKeeperParts {
  store: CredentialStore;
  leftovers: Pick<Leftovers, 'announce' | 'remove' | 'retire'>;
  freezer: Pick<FreezeStore, 'change'>;
  secrets: Pick<SecretVault, 'seal'>;
  identity: IdentityCheck;
  audit: AuditTrail;
  roleProof: Pick<RoleProof, 'prove'>;
  vault: Pick<Vault, 'reopen' | 'forget'>;
  /** Told of ciphertexts that stay behind in Secrets Manager: a cost, not a danger, because their keys are gone. */
  onLeftover: (secretName: string, cause: unknown) => void;
}

/** A test that the credential passed. */
export interface PassedTest {
  credential: StoredCredential;
  identity: AwsIdentity;
}

/** The life of merchants' stored credentials: in, shown, tested, frozen, out. Their use is vault.ts. Nothing here gives a secret back. */
export class CredentialKeeper {
  readonly #parts: CredentialKeeperParts;

  constructor(parts: CredentialKeeperParts) {
    this.#parts = parts;
  }

  /**
   * Everything of storing that is not the database's: AWS is asked who the credential is, then it is sealed.
   * The caller commits the result in a transaction of its own, or abandons it.
   * @param recordQuestion commits the record that AWS is about to be asked; called before it is, and only then. What it throws is thrown.
   * @throws ServiceError region.not_allowed | credential.refused_by_aws | upstream.unreachable | vault.unavailable
   * Cost: one call each of STS (or Bedrock), KMS and Secrets Manager.
   */
  async prepare(
    merchantId: MerchantId,
    input: CredentialInput,
    recordQuestion: () => Promise<void>,
  ): Promise<PreparedCredential> {
    const { identity, leftovers, secrets } = this.#parts;
    const { material, region } = input;
    const id = newCredentialId();
    if (material.kind === 'assume-role') return this.#prepareRole(merchantId, id, input);
    await recordQuestion();
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
    const { audit, store } = this.#parts;
    const prepared = await this.prepare(merchantId, input, () =>
      audit.append(merchantId, askingAws(actor, 'identity', { source: 'stored' })),
    );
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
   * Calls go on with what is open, unless the outcome is a decision against the credential.
   * @throws ServiceError as `open` and `prepare`; credential.refused_by_aws also when it is of another account than the one it was stored for.
   */
  async test(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<PassedTest> {
    const { store } = this.#parts;
    const stored = await store.get(merchantId, credentialId);
    const identity = await this.#askAws(actor, merchantId, stored).catch(async (error: unknown) => {
      if (endsUse(error)) this.#parts.vault.forget(merchantId, credentialId);
      const failed = failedTest(error);
      if (failed !== undefined) await store.markTested(merchantId, actor, credentialId, failed);
      throw error;
    });
    await store.markTested(merchantId, actor, credentialId, { result: 'ok', outcome: 'allowed' });
    return { credential: await store.get(merchantId, credentialId), identity };
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
    this.#parts.vault.forget(merchantId, credentialId);
    return store.get(merchantId, credentialId);
  }

  /**
   * Deletes a credential. When this returns its secret is beyond anyone's reach; the ciphertext is then removed as far as AWS lets us.
   * @throws ServiceError credential.not_found | ledger.unavailable
   */
  async delete(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<void> {
    const { store } = this.#parts;
    const secretNames = await store.delete(merchantId, actor, credentialId);
    this.#parts.vault.forget(merchantId, credentialId);
    await this.discard(merchantId, secretNames);
  }

  /** Removes ciphertexts whose keys are destroyed, as far as AWS lets us: one that stays is noise, told of, and tried again. Never throws. */
  discard(merchantId: MerchantId, secretNames: readonly string[]): Promise<void> {
    return this.#parts.leftovers.retire(merchantId, secretNames);
  }

  /** @throws ServiceError credential.refused_by_aws for another account: it would get the merchant's prompts, and pay its bills. */
  async #askAws(actor: Actor, merchantId: MerchantId, stored: StoredCredential): Promise<AwsIdentity> {
    const { id: credentialId, region, version } = stored;
    const material = await this.#parts.vault.reopen(actor, merchantId, credentialId, version);
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
}

/** What to record of a failed test; undefined when the database itself failed, the credential went away meanwhile, or nobody was asked. */
function failedTest(error: unknown): { result: TestResult; outcome: 'denied' | 'failed' } | undefined {
  const { code, options } = error instanceof ServiceError ? error : new ServiceError('internal', '');
  if (code === 'ledger.unavailable' || code === 'credential.not_found' || code === 'limit.rate_exceeded')
    return undefined;
  if (code === 'credential.unsafe') return { result: code, outcome: 'denied' };
  if (code !== 'credential.refused_by_aws') return { result: code, outcome: 'failed' };
  const accountChanged = options.extra?.['refusal'] === 'account-changed';
  return { result: accountChanged ? 'account-changed' : code, outcome: 'denied' };
}
