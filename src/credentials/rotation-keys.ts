import type { Actor } from '../domain/audit.ts';
import { accessKeyHint } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { CredentialStore } from './credential-store.ts';
import type { IamAccessKey, IamKeys, KeyOwner } from './iam-keys.ts';
import type { DueRotation } from './rotation-state.ts';
import type { RotationKeyStore } from './rotation-key-store.ts';
import type { StoredCredential } from './stored-credential.ts';
import type { Vault } from './vault.ts';

export interface RotationKeysParts {
  store: RotationKeyStore;
  credentials: Pick<CredentialStore, 'get'>;
  vault: Pick<Vault, 'open'>;
  iamKeys: IamKeys;
}

/**
 * The keys at IAM of rotations that make their own: before one is made there is exactly one, and the one that is not needed any more is
 * deactivated first, where a person can still undo it, and deleted after a grace. Signed by the credential's current version, always.
 */
export class RotationKeys {
  readonly #parts: RotationKeysParts;

  constructor(parts: RotationKeysParts) {
    this.#parts = parts;
  }

  /**
   * Makes room for a new key: one that we deactivated is deleted before its grace is over.
   * @returns whose keys they are.
   * @throws ServiceError request.invalid (no access key) | credential.refused_by_aws, `refusal: key-limit`, for a second key that is not ours |
   *   as IamKeys and Vault.open
   */
  async makeRoom(actor: Actor, merchantId: MerchantId, stored: StoredCredential): Promise<KeyOwner> {
    const { iamKeys, store } = this.#parts;
    const owner = await this.#ownerOf(actor, merchantId, stored);
    const left = await store.leftKeys(merchantId, stored.id);
    for (const key of others(await iamKeys.list(owner), owner)) {
      const name = left.find(({ keyHint }) => keyHint === accessKeyHint(key.accessKeyId));
      if (name === undefined || key.state === 'active') throw noRoom(key);
      await iamKeys.remove(owner, key.accessKeyId);
      await store.keyDone(name, 'deleted');
    }
    return owner;
  }

  /**
   * Goes on with the key that a rotation left over: the one it replaced, or the one that never came into force.
   * @throws ServiceError as IamKeys and Vault.open: to be tried again.
   */
  async clean(actor: Actor, due: DueRotation): Promise<void> {
    const { credentials, iamKeys, store } = this.#parts;
    const stored = await credentials.get(due.merchantId, due.credentialId).catch(noneIfGone);
    // With a deleted credential goes our right to do anything at IAM.
    if (stored === undefined) {
      await store.keyDone(due, 'none');
      return;
    }
    const owner = await this.#ownerOf(actor, due.merchantId, stored);
    const unneeded = await store.unneededKey(due);
    const keys = others(await iamKeys.list(owner), owner).filter((key) => isMeant(key, unneeded));
    for (const { accessKeyId } of keys) {
      if (due.keyState === 'deactivated') await iamKeys.remove(owner, accessKeyId);
      else await iamKeys.deactivate(owner, accessKeyId);
    }
    const done = due.keyState === 'deactivated' ? 'deleted' : 'deactivated';
    await store.keyDone(due, keys.length === 0 ? 'none' : done);
  }

  async #ownerOf(actor: Actor, merchantId: MerchantId, stored: StoredCredential): Promise<KeyOwner> {
    const credential = await this.#parts.vault.open(actor, merchantId, stored.id, stored.version);
    if (credential.kind === 'access-key') return { accessKey: credential, principalArn: stored.principalArn };
    throw new ServiceError(
      'request.invalid',
      'Only access keys can be made at IAM. Send the new key itself.',
      {
        problems: ['mode iam is for credentials of kind access-key'],
      },
    );
  }
}

/** What is known of a key that is not needed: its hint, or, where its process died before it told, that it is younger than the rotation. */
function isMeant(key: IamAccessKey, { keyHint, startedAt }: { keyHint: string | null; startedAt: Date }) {
  if (keyHint !== null) return accessKeyHint(key.accessKeyId) === keyHint;
  // IAM tells whole seconds. There was no other key when the rotation began.
  return key.createdAt.getTime() >= Math.floor(startedAt.getTime() / 1_000) * 1_000;
}

function others(keys: readonly IamAccessKey[], { accessKey }: KeyOwner): IamAccessKey[] {
  return keys.filter(({ accessKeyId }) => accessKeyId !== accessKey.accessKeyId);
}

function noRoom({ accessKeyId, state }: IamAccessKey): ServiceError {
  return new ServiceError(
    'credential.refused_by_aws',
    `The IAM user has a second access key, ${accessKeyHint(accessKeyId)} (${state}), and AWS allows two. Delete it if nothing uses it, then try again.`,
    { extra: { refusal: 'key-limit' } },
  );
}

function noneIfGone(error: unknown): undefined {
  if (error instanceof ServiceError && error.code === 'credential.not_found') return undefined;
  throw error;
}
