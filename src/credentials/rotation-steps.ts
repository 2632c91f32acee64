import type { Actor } from '../domain/audit.ts';
import type { AwsCredential, AwsIdentity, StoredMaterial } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { ErrorCode } from '../domain/error-catalogue.ts';
import type { CredentialStore } from './credential-store.ts';
import type { IdentityCheck } from './identity.ts';
import { lostPermissions } from './permission-probes.ts';
import type { PermissionProbes } from './permission-probes.ts';
import type { RotationName, RotationState } from './rotation-state.ts';
import type { RotationStore } from './rotation-store.ts';
import type { SecretVault } from './secret-vault.ts';
import type { StoredCredential } from './stored-credential.ts';
import type { Vault } from './vault.ts';

export interface RotationStepsParts {
  store: RotationStore;
  credentials: Pick<CredentialStore, 'get'>;
  vault: Pick<Vault, 'open' | 'recordAsking' | 'forgetCurrent'>;
  secrets: SecretVault;
  identity: IdentityCheck;
  probes: PermissionProbes;
}

/** Errors that will be the same tomorrow: a pending version that meets one is given up at once. */
const FINAL: ReadonlySet<ErrorCode> = new Set([
  'credential.refused_by_aws',
  'credential.unreadable',
  'credential.not_found',
  'region.not_allowed',
  'rotation.account_changed',
  'rotation.failed',
]);

const NOT_COMPARED =
  'What the new credential may do was not compared with what the one before was allowed: that one could not be used.';

export function isFinal(error: unknown): error is ServiceError {
  return error instanceof ServiceError && FINAL.has(error.code);
}

/** A suspended merchant's rotation waits until it is active again, however long that is. */
export function isParked(error: unknown): boolean {
  return error instanceof ServiceError && error.code === 'merchant.not_active';
}

/** A key that was made a moment ago is not known everywhere for some seconds. */
export function isUnknownKey(error: unknown): boolean {
  return error instanceof ServiceError && error.options.extra?.['refusal'] === 'unknown-key';
}

/**
 * What is done with a rotation after its new version was sealed, by the request that began it or, when that died, by any process.
 * Every step can be done twice.
 */
export class RotationSteps {
  readonly #parts: RotationStepsParts;

  constructor(parts: RotationStepsParts) {
    this.#parts = parts;
  }

  /**
   * Opens the pending version as a call would, asks AWS whose it is and what it may, and puts it in force.
   * @returns `promoted`, or how the rotation stands when somebody else was faster.
   * @throws ServiceError credential.refused_by_aws | rotation.account_changed | rotation.failed | credential.unreadable | vault.unavailable |
   *   upstream.unreachable | merchant.not_active | ledger.unavailable. The version before is in force then.
   */
  async prove(actor: Actor, name: RotationName): Promise<RotationState | 'promoted'> {
    const { store, credentials, secrets, vault } = this.#parts;
    const { merchantId, credentialId } = name;
    const stored = await credentials.get(merchantId, credentialId);
    const sealed = await store.openPending(actor, name);
    if (sealed === undefined) return this.#decided(name);
    const credential = keysIn(await secrets.open(name, sealed));
    const identity = await this.#parts.identity.checkCredential(credential, stored.region);
    const warnings = await this.#lost(actor, { merchantId, stored, credential });
    const outcome = await store.promote(actor, name, { ...identity, warnings });
    if (outcome === 'account') throw accountChanged(stored, identity);
    if (outcome === 'missing') throw failed('interrupted');
    vault.forgetCurrent(merchantId, credentialId);
    return outcome;
  }

  /** @returns how a rotation without a pending version stands: somebody else was faster. @throws ServiceError rotation.failed when it was never sealed */
  async #decided(name: RotationName): Promise<RotationState> {
    const state = await this.#parts.store.stateOf(name);
    if (state === undefined || state === 'pending') throw failed('interrupted');
    return state;
  }

  /** Moves the labels in Secrets Manager to where the versions of the credential now are, and writes that down. @throws ServiceError vault.unavailable */
  async label(name: RotationName, state: RotationState): Promise<void> {
    const { store, secrets } = this.#parts;
    const wanted = await store.labelsOf(name.merchantId, name.credentialId);
    if (wanted !== undefined) await secrets.relabel(wanted.secretName, wanted.labels);
    await store.labelled(name, state);
  }

  /** @returns what the version before might and this one may not; that this is not known, where the one before may not be asked any more. */
  async #lost(
    actor: Actor,
    {
      merchantId,
      stored,
      credential,
    }: { merchantId: RotationName['merchantId']; stored: StoredCredential; credential: AwsCredential },
  ): Promise<string[]> {
    const { vault, probes } = this.#parts;
    const before = await vault
      .recordAsking(actor, merchantId, stored.id, 'permissions')
      .then(() => vault.open(actor, merchantId, stored.id, stored.version))
      .then(keysIn)
      .catch(() => undefined);
    if (before === undefined) return [NOT_COMPARED];
    const [might, may] = await Promise.all([
      probes.ask(before, stored.region),
      probes.ask(credential, stored.region),
    ]);
    return lostPermissions(might, may);
  }
}

/** What is rotated is keys: refuseOtherKind() and assertMayMakeKeys() let no rotation of a role begin. */
function keysIn(material: StoredMaterial): AwsCredential {
  if (material.kind !== 'assume-role') return material;
  throw new ServiceError('internal', 'A role is not rotated.');
}

/** The reason is told; the version that was current still is. */
export function failed(reason: string): ServiceError {
  return new ServiceError(
    'rotation.failed',
    `The new version was given up (${reason}) and destroyed. The version before is in force; rotate again.`,
    { extra: { reason } },
  );
}

/** @returns the error for a credential of another account: it would get the merchant's prompts, and pay its bills. */
export function accountChanged({ accountId }: StoredCredential, found: AwsIdentity): ServiceError {
  return new ServiceError(
    'rotation.account_changed',
    `The new credential is of AWS account ${found.accountId ?? 'unknown'}, the stored one of ${accountId ?? 'unknown'}. ` +
      'Use one of the same account; if the move is meant, let an operator approve it with POST /api/ops/merchants/:id/credentials/:cid/approve-account.',
    { extra: { accountId: found.accountId ?? 'unknown' } },
  );
}
