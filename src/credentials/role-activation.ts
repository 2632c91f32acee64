import { askingAws } from '../domain/audit.ts';
import type { Actor, AuditTrail } from '../domain/audit.ts';
import type { AssumableRole } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { endsUse, otherRolePinned, stillFrozen } from './credential-state.ts';
import type { CredentialStore } from './credential-store.ts';
import type { Leftovers } from './leftovers.ts';
import type { RoleAssumer } from './role-assumer.ts';
import type { RoleProof } from './role-proof.ts';
import type { Proven, RoleStore } from './role-store.ts';
import type { SealedVersion, SecretVault } from './secret-vault.ts';
import type { StoredCredential } from './stored-credential.ts';
import { trustPolicy } from './trust-policy.ts';
import type { PolicyDocument } from './trust-policy.ts';

export interface RoleActivationParts {
  store: Pick<CredentialStore, 'get' | 'setDefault'>;
  roleStore: Pick<RoleStore, 'activated'>;
  proof: Pick<RoleProof, 'prove'>;
  audit: AuditTrail;
  assumer: Pick<RoleAssumer, 'ownPrincipal'>;
  secrets: Pick<SecretVault, 'seal'>;
  leftovers: Pick<Leftovers, 'announce' | 'remove'>;
  /** Regions of this deployment. */
  regions: readonly string[];
  /** Forgets what is remembered of a credential. */
  forget: (merchantId: MerchantId, credentialId: CredentialId) => void;
  /** Told of ciphertexts that stayed behind in Secrets Manager: their keys are gone. */
  onLeftover: (secretName: string, cause: unknown) => void;
}

/** What a merchant needs to make the role. None of it is secret. */
export interface RoleSetup {
  externalId: string;
  /** Whom the trust policy names: this service. */
  principalArn: string;
  roleName: string;
  trustPolicy: PolicyDocument;
}

/** From a credential that waits for its role to one that signs. */
export class RoleActivation {
  readonly #parts: RoleActivationParts;

  constructor(parts: RoleActivationParts) {
    this.#parts = parts;
  }

  /**
   * That the service can assume roles at all, and does so in this region.
   * @throws ServiceError region.not_allowed | upstream.unreachable
   */
  async checkRegion(region: string): Promise<void> {
    const { regions, assumer } = this.#parts;
    if (!regions.includes(region))
      throw new ServiceError(
        'region.not_allowed',
        `Use one of the regions of this service: ${regions.join(', ')}.`,
      );
    await assumer.ownPrincipal();
  }

  /** @throws ServiceError credential.not_usable (of another kind) | upstream.unreachable | upstream.throttled */
  async setup(
    merchantId: MerchantId,
    credential: Pick<StoredCredential, 'id' | 'externalId'>,
  ): Promise<RoleSetup> {
    const externalId = externalIdOf(credential);
    const principalArn = await this.#parts.assumer.ownPrincipal();
    const credentialId = credential.id;
    return {
      externalId,
      principalArn,
      roleName: `merchant-bedrock-${credentialId.slice(-8)}`,
      trustPolicy: trustPolicy({ merchantId, credentialId, externalId, principalArn }),
    };
  }

  /**
   * Proves the role, seals it as the credential's first version and lets it sign. Safe to repeat; one that is active is proven again.
   * @throws ServiceError credential.not_found | credential.not_usable | vault.unavailable | ledger.unavailable, and as RoleProof.prove
   * Cost: as RoleProof.prove; the first time one call each of KMS and Secrets Manager.
   */
  async activate(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    { roleArn, makeDefault }: { roleArn: string; makeDefault: boolean },
  ): Promise<StoredCredential> {
    const { store, proof, audit, forget } = this.#parts;
    const credential = await store.get(merchantId, credentialId);
    const role = { kind: 'assume-role', roleArn, externalId: externalIdOf(credential) } as const;
    const { region, version, state, unsafeCount } = credential;
    if (state === 'frozen') throw stillFrozen();
    if (version > 0 && credential.principalArn !== roleArn) throw otherRolePinned();
    const of = { actor, merchantId, credentialId, region };
    await audit.append(merchantId, askingAws(actor, 'role', { source: 'stored', credentialId }));
    try {
      await proof.prove(of, role);
      const sealed = version > 0 ? undefined : await this.#seal(merchantId, credentialId, role);
      await this.#commit(of, { roleArn, unsafeCount, sealed }, makeDefault);
    } catch (error) {
      if (endsUse(error)) forget(merchantId, credentialId);
      throw error;
    }
    forget(merchantId, credentialId);
    return store.get(merchantId, credentialId);
  }

  async #commit(
    of: { actor: Actor; merchantId: MerchantId; credentialId: CredentialId },
    proven: Proven,
    makeDefault: boolean,
  ): Promise<void> {
    const { store, roleStore, onLeftover } = this.#parts;
    const { actor, merchantId, credentialId } = of;
    const { sealed } = proven;
    try {
      const inUse = await roleStore.activated(of, proven, async (tx) => {
        if (makeDefault) await store.setDefault(merchantId, tx, actor, credentialId);
      });
      if (!inUse && sealed !== undefined) await this.#discard(merchantId, sealed);
    } catch (error) {
      // Whether it was committed is then not known: the row may need it.
      const undecided = error instanceof ServiceError && error.code === 'ledger.unavailable';
      if (sealed !== undefined && undecided) onLeftover(sealed.secretName, error);
      else if (sealed !== undefined) await this.#discard(merchantId, sealed);
      throw error;
    }
  }

  #seal(merchantId: MerchantId, credentialId: CredentialId, role: AssumableRole): Promise<SealedVersion> {
    const { secrets, leftovers } = this.#parts;
    return secrets.seal({ merchantId, credentialId, version: 1 }, role, (secretName) =>
      leftovers.announce({ merchantId, secretName }),
    );
  }

  async #discard(merchantId: MerchantId, { secretName }: SealedVersion): Promise<void> {
    await this.#parts.leftovers.remove({ merchantId, secretName });
  }
}

/** @throws ServiceError credential.not_usable */
function externalIdOf({ externalId }: Pick<StoredCredential, 'externalId'>): string {
  if (externalId !== undefined) return externalId;
  throw new ServiceError(
    'credential.not_usable',
    'This credential is no role: it has no trust policy, and was proven when it was stored.',
  );
}
