import type { Actor } from '../domain/audit.ts';
import { accessKeyHint } from '../domain/credential.ts';
import type { AccessKey } from '../domain/credential.ts';
import type { ErrorCode } from '../domain/error-catalogue.ts';
import { ServiceError } from '../domain/errors.ts';
import { assertActive } from './credential-state.ts';
import type { CredentialStore } from './credential-store.ts';
import type { IamAccessKey, IamKeys, KeyOwner } from './iam-keys.ts';
import type { DueRotation, KeyState, RotationName } from './rotation-state.ts';
import type { RotationKeyStore, UnneededKey } from './rotation-key-store.ts';
import { failed } from './rotation-steps.ts';
import type { StoredCredential } from './stored-credential.ts';
import type { Vault } from './vault.ts';

export interface RotationKeysParts {
  store: RotationKeyStore;
  credentials: Pick<CredentialStore, 'get'>;
  vault: Pick<Vault, 'open' | 'recordAsking'>;
  iamKeys: IamKeys;
}

/** Errors with which IAM says that it made no key. */
const NOT_MADE: ReadonlySet<ErrorCode> = new Set([
  'credential.refused_by_aws',
  'credential.not_usable',
  'upstream.throttled',
]);
/** Errors with which IAM says that it deleted none. Another one may come after a first attempt that did. */
const NOT_DELETED: ReadonlySet<ErrorCode> = new Set(['credential.refused_by_aws', 'credential.not_usable']);
/** A key was made this long before or after it was asked for, by two clocks. Milliseconds. */
const CLOCKS_APART_MS = 60_000;
/** Longer than IAM is waited for, and shorter than a person takes to make another. Milliseconds. */
const MADE_WITHIN_MS = 15_000;

/** What a rotation of mode `iam` needs. @throws ServiceError request.invalid | credential.not_usable */
export function assertMayMakeKeys({ kind, state }: Pick<StoredCredential, 'kind' | 'state'>): void {
  if (kind !== 'access-key')
    throw new ServiceError(
      'request.invalid',
      'Only access keys can be made at IAM. Send the new key itself.',
      { problems: ['mode iam is for credentials of kind access-key'] },
    );
  assertActive(state);
}

/**
 * The keys at IAM of rotations that make their own: before one is made there is exactly one, and the one that is not needed any more is
 * deactivated first, where a person can still undo it, and deleted after a grace. Signed by the credential's current version, always, and
 * never by one that somebody froze, nor for a merchant that is suspended. IAM is asked nothing before the record of it is committed.
 */
export class RotationKeys {
  readonly #parts: RotationKeysParts;

  constructor(parts: RotationKeysParts) {
    this.#parts = parts;
  }

  /**
   * Makes the key of a rotation that has begun. That it is asked for is written down before, and which it is after: whoever finds the
   * rotation without its process knows what to look for.
   * @throws ServiceError credential.refused_by_aws, `refusal: key-limit`, for a second key that is not ours | rotation.failed when the
   *   rotation was given up meanwhile | as IamKeys, Vault.recordAsking and Vault.open
   */
  async make(actor: Actor, name: RotationName): Promise<AccessKey> {
    const { credentials, iamKeys, store } = this.#parts;
    const owner = await this.#ownerOf(actor, name, await credentials.get(name.merchantId, name.credentialId));
    await this.#makeRoom(name, owner);
    if (!(await store.keyAsked(name))) throw failed('interrupted');
    const made = await iamKeys.create(owner).catch(async (error: unknown) => {
      // Where this is not written, the key that is not there is looked for.
      if (error instanceof ServiceError && NOT_MADE.has(error.code))
        await store.keyRefused(name).catch(() => false);
      throw error;
    });
    await store.keyMade(name, accessKeyHint(made.accessKeyId));
    return made;
  }

  /**
   * Goes on with the key that a rotation left over: the one it replaced, or the one that never came into force.
   * @returns what became of it. @throws ServiceError as IamKeys, Vault.recordAsking and Vault.open, or while it cannot be said which key is
   *   meant: to be tried again.
   */
  async clean(actor: Actor, due: DueRotation): Promise<KeyState> {
    const { credentials, store } = this.#parts;
    const stored = await credentials.get(due.merchantId, due.credentialId).catch(noneIfGone);
    const state =
      // With a deleted credential goes our right to do anything at IAM.
      stored === undefined
        ? 'none'
        : ((await this.#notOurs(due, stored)) ?? (await this.#cleanAtIam(actor, due, stored)));
    await store.keyDone(due, state);
    return state;
  }

  /** Whoever signs acts on the keys of the own IAM user, whichever that is by now. @returns undefined where it is the one that the key is of. */
  async #notOurs(due: DueRotation, { principalArn }: StoredCredential): Promise<KeyState | undefined> {
    const { principals, takenBack } = await this.#parts.store.unneededKey(due);
    if (takenBack) return 'none';
    return principalArn !== undefined && principals.includes(principalArn) ? undefined : 'left';
  }

  async #cleanAtIam(actor: Actor, due: DueRotation, stored: StoredCredential): Promise<KeyState> {
    const { iamKeys, store } = this.#parts;
    const owner = await this.#ownerOf(actor, due, stored);
    const listed = others(await iamKeys.list(owner), owner);
    // Read after the list: a key that a newer rotation made, and IAM listed, is known by now, or its rotation is pending.
    const unneeded = await store.unneededKey(due);
    if (unneeded.pending) throw notNow('another rotation of the credential is being tested');
    const key = listed.find((one) => isMeant(one, unneeded));
    if (key === undefined) return notListed(due, unneeded);
    if (due.keyState === 'deactivated') {
      // What a person activated again stays.
      if (key.state === 'active') return 'none';
      return (await this.#remove(due, owner, key)) ? 'deleted' : 'none';
    }
    // Found by its age now, by its name from here on.
    if (unneeded.keyHint === null) await store.keyMade(due, accessKeyHint(key.accessKeyId));
    await iamKeys.deactivate(owner, key.accessKeyId);
    return 'deactivated';
  }

  /**
   * Deletes one that we deactivated. That IAM is asked to is written down before: a key that is gone was deleted by us only then.
   * @returns false when it is not ours to delete any more.
   */
  async #remove(name: RotationName, owner: KeyOwner, { accessKeyId }: IamAccessKey): Promise<boolean> {
    const { iamKeys, store } = this.#parts;
    if (!(await store.deletionAsked(name))) return false;
    await iamKeys.remove(owner, accessKeyId).catch(async (error: unknown) => {
      if (error instanceof ServiceError && NOT_DELETED.has(error.code))
        await store.deletionRefused(name).catch(() => false);
      throw error;
    });
    return true;
  }

  /** One that we deactivated is deleted before its grace is over. */
  async #makeRoom({ merchantId, credentialId }: RotationName, owner: KeyOwner): Promise<void> {
    const { iamKeys, store } = this.#parts;
    const left = await store.leftKeys(merchantId, credentialId, owner.principalArn);
    for (const key of others(await iamKeys.list(owner), owner)) {
      const name = left.find(({ keyHint }) => keyHint === accessKeyHint(key.accessKeyId));
      if (name === undefined || key.state === 'active') throw noRoom(key);
      if (!(await this.#remove(name, owner, key))) throw noRoom(key);
      await store.keyDone(name, 'deleted');
    }
  }

  async #ownerOf(actor: Actor, { merchantId }: RotationName, stored: StoredCredential): Promise<KeyOwner> {
    const { vault } = this.#parts;
    await vault.recordAsking(actor, merchantId, stored.id, 'keys');
    const credential = await vault.open(actor, merchantId, stored.id, stored.version);
    if (credential.kind === 'access-key') return { accessKey: credential, principalArn: stored.principalArn };
    throw new ServiceError('internal', 'What was opened is of another kind than its record says.');
  }
}

/** By its hint; or, where its process died before it told, by when it was made, and that it is none we ever had. */
function isMeant(key: IamAccessKey, { keyHint, askedAt, live, known }: UnneededKey): boolean {
  const hint = accessKeyHint(key.accessKeyId);
  if (keyHint !== null) return hint === keyHint && !live.includes(hint);
  if (askedAt === null || known.includes(hint)) return false;
  const after = key.createdAt.getTime() - askedAt.getTime();
  return after >= -CLOCKS_APART_MS && after <= MADE_WITHIN_MS;
}

/** IAM lists a new key everywhere only after a while. One that is gone was deleted by us, before that could be written, or by its owner. */
function notListed({ keyState }: DueRotation, { fresh, deletionAsked }: UnneededKey): KeyState {
  if (keyState === null && fresh) throw notNow('IAM may not list the key yet');
  return keyState === 'deactivated' && deletionAsked ? 'deleted' : 'none';
}

function others(keys: readonly IamAccessKey[], { accessKey }: KeyOwner): IamAccessKey[] {
  return keys.filter(({ accessKeyId }) => accessKeyId !== accessKey.accessKeyId);
}

function notNow(why: string): ServiceError {
  return new ServiceError('rotation.in_progress', `The key at IAM that is not needed has to wait: ${why}.`);
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
