import { randomUUID } from 'node:crypto';
import { askingAws } from '../domain/audit.ts';
import type { Actor, AuditTrail } from '../domain/audit.ts';
import type { AwsCredential } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { notFound } from './credential-state.ts';
import { keyHint } from './material.ts';
import { assertMayMakeKeys } from './rotation-keys.ts';
import type { RotationKeys } from './rotation-keys.ts';
import { accountChanged, failed, isUnknownKey } from './rotation-steps.ts';
import type { RotationSteps, RotationStepsParts } from './rotation-steps.ts';
import type {
  BeginAnswer,
  BegunRotation,
  RotationMode,
  RotationName,
  RotationRecord,
} from './rotation-state.ts';
import type { CurrentVersion, StoredCredential } from './stored-credential.ts';

export interface RotationParts extends RotationStepsParts {
  audit: AuditTrail;
  steps: RotationSteps;
  keys: Pick<RotationKeys, 'make'>;
  /** A step was left to the worker, which does it again. */
  onLeft: (name: RotationName, cause: unknown) => void;
}

export interface Rotated {
  credential: StoredCredential;
  rotation: RotationRecord;
}

/** Where the new material of a rotation comes from. It is made when the rotation has begun, once. */
interface NewMaterial {
  mode: RotationMode;
  make: (begun: BegunRotation) => Promise<AwsCredential>;
}

/** How long a key that was made a moment ago is asked for again. Milliseconds. */
const UNKNOWN_KEY_DELAYS_MS = [500, 1_000, 2_000, 4_000, 6_000];

/** Another credential in the place of a stored one, under running calls (docs/decisions/0014). */
export class Rotations {
  readonly #parts: RotationParts;

  constructor(parts: RotationParts) {
    this.#parts = parts;
  }

  /**
   * Rotates to what the merchant hands in. AWS is asked whose it is before anything else is written: a mistyped key leaves the record of the question only.
   * @throws ServiceError request.invalid (another kind) | credential.not_found | credential.refused_by_aws | rotation.in_progress |
   *   rotation.too_soon | rotation.account_changed | rotation.failed | vault.unavailable | upstream.unreachable: the version before is in force.
   *   ledger.unavailable: GET /credentials/:cid/rotation tells.
   */
  async rotate(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    material: AwsCredential,
  ): Promise<Rotated> {
    const stored = await this.#parts.credentials.get(merchantId, credentialId);
    refuseOtherKind(stored, material);
    await this.#parts.audit.append(
      merchantId,
      askingAws(actor, 'identity', { source: 'stored', credentialId }),
    );
    const found = await this.#parts.identity.checkCredential(material, stored.region);
    if (stored.accountId !== undefined && stored.accountId !== found.accountId) {
      const approved = await this.#parts.store.approvedAccount(merchantId, credentialId);
      if (approved === undefined || approved !== found.accountId) throw accountChanged(stored, found);
    }
    return this.#rotate(actor, stored, merchantId, {
      mode: 'material',
      make: () => Promise.resolve(material),
    });
  }

  /**
   * Rotates to a new key of the same IAM user, which is made with the current one; the old one is deactivated after the overlap, and deleted
   * after a grace. @throws ServiceError as `rotate` and RotationKeys.make; request.invalid where another credential is of the same IAM user
   */
  async rotateAtIam(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<Rotated> {
    const { credentials, keys } = this.#parts;
    const stored = await credentials.get(merchantId, credentialId);
    assertMayMakeKeys(stored);
    return this.#rotate(actor, stored, merchantId, {
      mode: 'iam',
      make: (begun) => keys.make(actor, begun),
    });
  }

  async #rotate(
    actor: Actor,
    { id: credentialId }: StoredCredential,
    merchantId: MerchantId,
    source: NewMaterial,
  ): Promise<Rotated> {
    const begun = begunOf(
      await this.#parts.store.begin(
        actor,
        { merchantId, credentialId },
        { mode: source.mode, secretVersionId: randomUUID() },
      ),
    );
    try {
      await this.#seal(begun, await source.make(begun));
      // Somebody may have given it up meanwhile, or rolled it back.
      if ((await this.#prove(actor, begun, source.mode)) === 'failed') throw failed('timed-out');
    } catch (error) {
      if (!(await this.#cameIntoForce(actor, begun, error))) throw error;
    }
    await this.#label(begun, 'overlap');
    return this.#result(merchantId, credentialId);
  }

  /**
   * Back to the version before, while its overlap lasts.
   * @throws ServiceError credential.not_found | rotation.not_reversible | ledger.unavailable
   */
  async rollBack(actor: Actor, merchantId: MerchantId, credentialId: CredentialId): Promise<Rotated> {
    const { store, credentials, vault } = this.#parts;
    await credentials.get(merchantId, credentialId);
    const version = await store.rollBack(actor, { merchantId, credentialId });
    if (version === null) {
      throw new ServiceError(
        'rotation.not_reversible',
        'There is no version to go back to: none was replaced, or its overlap is over and it was destroyed. ' +
          'To use the old key again, rotate to it with POST /credentials/:cid/rotate.',
      );
    }
    vault.forgetCurrent(merchantId, credentialId);
    const result = await this.#result(merchantId, credentialId);
    await this.#label({ merchantId, credentialId, version: result.rotation.version }, 'rolled-back');
    return result;
  }

  /** The latest rotation; undefined when there was none. @throws ServiceError credential.not_found */
  async latest(merchantId: MerchantId, credentialId: CredentialId): Promise<RotationRecord | undefined> {
    await this.#parts.credentials.get(merchantId, credentialId);
    return this.#parts.store.latest(merchantId, credentialId);
  }

  /** The other version that may sign now, for a call whose version AWS refused; undefined when there is none. Cost: one transaction. */
  other(
    merchantId: MerchantId,
    credentialId: CredentialId,
    version: number,
  ): Promise<CurrentVersion | undefined> {
    return this.#parts.store.other(merchantId, credentialId, version);
  }

  /** For an operator: the next rotation may move to this account. @returns false when there is no such credential. */
  approveAccount(
    actor: Actor,
    merchantId: MerchantId,
    credentialId: CredentialId,
    approval: { accountId: string; reason: string },
  ): Promise<boolean> {
    return this.#parts.store.approveAccount(actor, { merchantId, credentialId }, approval);
  }

  async #seal(begun: BegunRotation, material: AwsCredential): Promise<void> {
    const { secrets, store } = this.#parts;
    const sealed = await secrets.sealNext(begun, material, begun);
    if (!(await store.sealed(begun, sealed, keyHint(material)))) throw failed('interrupted');
  }

  async #prove(actor: Actor, begun: BegunRotation, mode: RotationMode) {
    for (const delayMs of mode === 'iam' ? UNKNOWN_KEY_DELAYS_MS : []) {
      try {
        return await this.#parts.steps.prove(actor, begun);
      } catch (error) {
        if (!isUnknownKey(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, delayMs));
      }
    }
    return this.#parts.steps.prove(actor, begun);
  }

  /**
   * The caller is told no, so nothing may come of it later: it is given up. Where the database is away, the worker decides, and the caller has to
   * look. @returns whether it is in force all the same: another process went on with it, because this one took long.
   */
  async #cameIntoForce(actor: Actor, begun: BegunRotation, error: unknown): Promise<boolean> {
    const { store, onLeft } = this.#parts;
    const code = error instanceof ServiceError ? error.code : 'internal';
    if (code === 'ledger.unavailable') return false;
    try {
      if (await store.fail(actor, begun, code)) return false;
      return ['overlap', 'retired'].includes((await store.stateOf(begun)) ?? '');
    } catch (cause) {
      onLeft(begun, cause);
      return false;
    }
  }

  async #label(name: RotationName, state: 'overlap' | 'rolled-back'): Promise<void> {
    await this.#parts.steps.label(name, state).catch((cause: unknown) => {
      this.#parts.onLeft(name, cause);
    });
  }

  async #result(merchantId: MerchantId, credentialId: CredentialId): Promise<Rotated> {
    const { credentials, store } = this.#parts;
    const credential = await credentials.get(merchantId, credentialId);
    const rotation = await store.latest(merchantId, credentialId);
    if (rotation === undefined) throw new ServiceError('internal', 'The rotation is not on record.');
    return { credential, rotation };
  }
}

const WHY_IN_PROGRESS = {
  overlap: (version: string) =>
    `${version} was put in force a moment ago and the one before is in its overlap: roll it back, or wait until it is over`,
  pending: (version: string) =>
    `${version} is being tested: GET /credentials/:cid/rotation tells how it ends`,
  labels: (version: string) =>
    `the labels of ${version} in Secrets Manager could not be moved yet, which is tried again by itself`,
};

/** @throws ServiceError */
function begunOf(answer: BeginAnswer): BegunRotation {
  switch (answer.verdict) {
    case 'begun':
      return answer.rotation;
    case 'missing':
      throw notFound();
    case 'shared':
      throw new ServiceError(
        'request.invalid',
        `Credential ${answer.credentialId} is of the same IAM user, whose keys would be mistaken for those of this one. Delete it, or send the new key itself.`,
        { problems: ['mode iam is for an IAM user whom one credential is of'] },
      );
    case 'in_progress': {
      const { state, version, retryAfterSeconds } = answer;
      const why = WHY_IN_PROGRESS[state === 'pending' || state === 'overlap' ? state : 'labels'](
        `version ${String(version)}`,
      );
      throw new ServiceError('rotation.in_progress', `One rotation at a time: ${why}.`, {
        retryAfterSeconds,
        extra: { state, version },
      });
    }
    case 'too_soon':
      throw new ServiceError(
        'rotation.too_soon',
        'This credential was rotated a short while ago, and Secrets Manager keeps a limited number of versions. Wait as long as Retry-After says, or store a new credential.',
        { retryAfterSeconds: answer.retryAfterSeconds },
      );
  }
}

function refuseOtherKind({ kind }: StoredCredential, material: AwsCredential): void {
  if (kind === material.kind) return;
  throw new ServiceError(
    'request.invalid',
    `A rotation keeps the kind: this credential is of kind ${kind}. Store one of another kind with POST /credentials.`,
    { problems: [`kind must be ${kind}`] },
  );
}
