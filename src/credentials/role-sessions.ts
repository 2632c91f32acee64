import { createHash } from 'node:crypto';
import type { Clock } from '../domain/clock.ts';
import type { AccessKey, AssumableRole, AwsCredential, StoredMaterial } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { RefreshingCache } from '../memory/refreshing-cache.ts';
import type { Lasting } from '../memory/refreshing-cache.ts';
import { endsUse } from './credential-state.ts';
import type { CredentialStore } from './credential-store.ts';
import type { RoleAssumer } from './role-assumer.ts';
import { sessionNameOf, sessionTagsOf } from './role.ts';
import type { SecretPlace } from './secret-vault.ts';
import { CALL_POLICIES } from './session-policy.ts';
import type { SessionPolicies } from './session-policy.ts';

export interface RoleSessionsOptions {
  assumer: Pick<RoleAssumer, 'assume'>;
  /** Records each question, and refuses those of a credential or merchant that was stopped, by whatever replica. */
  store: Pick<CredentialStore, 'recordAsking'>;
  /** Counts spans: the end of a session is so long after it was asked for, whatever the system's clock says. */
  clock: Clock;
  /** Most sessions held, of all merchants. */
  max: number;
  random?: () => number;
  onRefreshFailed?: (error: unknown) => void;
}

/** What signs, and the name of its client in the pool: another session is another client. */
export interface Signer {
  credential: AwsCredential;
  poolKey: string;
}

interface Session {
  accessKey: AccessKey;
  serial: number;
  /** By the clock of spans. */
  askedAtMs: number;
  /** AWS denied it what an end of the role's sessions would also deny. */
  doubted: boolean;
}

/** No call begins with a session that ends sooner: signing, connecting and AWS's own check come after it was taken from here. */
const MARGIN_MS = 60_000;
const IDLE_MS = 15 * 60_000;
/**
 * A session that AWS refuses is replaced if it is older than this. A younger one is what AWS gives out now, and another would be refused as
 * well: so however many calls are refused, one session a minute is asked for, of a quota that all merchants share.
 */
const REPLACED_FROM_MS = 60_000;
/** A session is renewed for all who use it, and nobody waits. */
const ACTOR = { subject: 'system', requestId: 'role-session' };

/**
 * Sessions of merchants' roles, in memory only. Each is of one merchant, credential, version, role, ExternalId, region and policy: two
 * merchants that name the same role never share one. That the version is still current is decided by Postgres for every call.
 */
export class RoleSessions implements Disposable {
  readonly #options: RoleSessionsOptions;
  readonly #sessions: RefreshingCache<Session>;
  /** Where each session that signs calls is kept, by itself: nobody can name one that he was not given. */
  readonly #keys = new WeakMap<AwsCredential, string>();
  #serial = 0;

  constructor(options: RoleSessionsOptions) {
    const { clock, max, random, onRefreshFailed } = options;
    this.#options = options;
    this.#sessions = new RefreshingCache({
      max,
      marginMs: MARGIN_MS,
      idleMs: IDLE_MS,
      clock,
      ...(random && { random }),
      ...(onRefreshFailed && { onRefreshFailed }),
      // A merchant that takes its trust back is obeyed at the next refresh, and not when the session ends.
      isFinal: endsUse,
    });
  }

  /**
   * What signs for a stored credential: itself, or a session of the role that it is.
   * @throws ServiceError as RoleAssumer.assume, and ledger.unavailable: what cannot be recorded is not asked
   * Cost: one transaction and one call of STS an hour for each role in use; nobody waits for it but the first.
   */
  async signerOf(
    place: SecretPlace,
    material: StoredMaterial,
    region: string,
    policies: SessionPolicies = CALL_POLICIES,
  ): Promise<Signer> {
    const poolKey = `${place.credentialId}:${String(place.version)}`;
    if (material.kind !== 'assume-role') return { credential: material, poolKey };
    const key = keyOf(place, material, region, policies);
    const { accessKey, serial } = await this.#sessions.get(key, async () => {
      const lasting = await this.#assume(place, material, region, policies);
      this.#keys.set(lasting.value.accessKey, key);
      return lasting;
    });
    return { credential: accessKey, poolKey: `${poolKey}:${String(serial)}` };
  }

  /** Whether `signerOf` would ask nobody. */
  holds(place: SecretPlace, material: StoredMaterial, region: string): boolean {
    if (material.kind !== 'assume-role') return true;
    return this.#sessions.has(keyOf(place, material, region, CALL_POLICIES));
  }

  /**
   * As `signerOf`, but AWS is asked: whether the role would still let us in. Sessions in use go on, unless AWS refuses: an outage of STS ends none.
   * @throws ServiceError as RoleAssumer.assume. Cost: one call of STS for a role.
   */
  async newSignerOf(place: SecretPlace, material: StoredMaterial, region: string): Promise<Signer> {
    if (material.kind !== 'assume-role') return this.signerOf(place, material, region);
    const { value } = await this.#assume(place, material, region, CALL_POLICIES).catch((error: unknown) => {
      if (endsUse(error)) this.evict(place.merchantId, place.credentialId);
      throw error;
    });
    const { accessKey, serial } = value;
    return {
      credential: accessKey,
      poolKey: `${place.credentialId}:${String(place.version)}:${String(serial)}`,
    };
  }

  /**
   * AWS refused this session itself: its role was made anew, or all that was given out before was ended. It is given up, if it is still the
   * one in use: a hundred calls that are refused at one time do not end the session that came in its place.
   * @returns whether `signerOf` would now give another; false for what is no session of a role.
   */
  refused(credential: AwsCredential): boolean {
    const key = this.#keys.get(credential);
    if (key === undefined) return false;
    const held = this.#sessions.peek(key);
    if (held?.accessKey !== credential) return true;
    if (this.#isYoung(held)) return false;
    this.#sessions.giveUp(key);
    return true;
  }

  /**
   * AWS denied what this session asked, as it does to all sessions from before an owner ended them ("Revoke active sessions"), but also for
   * reasons of the call: so it is renewed behind the next call and serves until then. Once: a denial that stays is one of the call.
   */
  doubt(credential: AwsCredential): void {
    const key = this.#keys.get(credential);
    const held = key === undefined ? undefined : this.#sessions.peek(key);
    if (key === undefined || held?.accessKey !== credential) return;
    if (held.doubted || this.#isYoung(held)) return;
    held.doubted = true;
    this.#sessions.hasten(key);
  }

  /** Forgets all sessions of a credential, or of a merchant. */
  evict(merchantId: MerchantId, credentialId?: CredentialId): void {
    this.#sessions.evict(credentialId === undefined ? `${merchantId}/` : `${merchantId}/${credentialId}/`);
  }

  [Symbol.dispose](): void {
    this.#sessions[Symbol.dispose]();
  }

  #isYoung({ askedAtMs }: Session): boolean {
    return this.#options.clock.now() - askedAtMs < REPLACED_FROM_MS;
  }

  async #assume(
    { merchantId, credentialId }: SecretPlace,
    { roleArn, externalId }: AssumableRole,
    region: string,
    policies: SessionPolicies,
  ): Promise<Lasting<Session>> {
    const { assumer, clock, store } = this.#options;
    const askedAtMs = clock.now();
    await store.recordAsking(merchantId, ACTOR, credentialId, 'role');
    const { accessKey, lifetimeMs } = await assumer.assume({
      roleArn,
      externalId,
      region,
      sessionName: sessionNameOf(merchantId),
      tags: sessionTagsOf(merchantId, credentialId),
      policies,
    });
    this.#serial += 1;
    return { value: { accessKey, serial: this.#serial, askedAtMs, doubted: false }, lifetimeMs };
  }
}

/** All that defines a session. Neither id can hold a slash, so no prefix is the beginning of another's. */
function keyOf(
  { merchantId, credentialId, version }: SecretPlace,
  { roleArn, externalId }: AssumableRole,
  region: string,
  policies: SessionPolicies,
): string {
  const defining = JSON.stringify([version, roleArn, externalId, region, policies]);
  return `${merchantId}/${credentialId}/${createHash('sha256').update(defining).digest('base64url')}`;
}
