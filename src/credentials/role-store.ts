import type { Actor } from '../domain/audit.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database, Tx } from '../persistence/database.ts';
import { foundUnsafeMeanwhile, notFound, otherRolePinned, stillFrozen } from './credential-state.ts';
import { claimSecret } from './leftover-store.ts';
import { accountOfRole, roleHint } from './role.ts';
import type { SealedVersion } from './secret-vault.ts';

interface Of {
  actor: Actor;
  merchantId: MerchantId;
  credentialId: CredentialId;
}

/** A role that passed its proof. */
export interface Proven {
  roleArn: string;
  /** How often the role had been found unsafe when the proof began: one more since then, and the proof counts for nothing. */
  unsafeCount: number;
  /** Its first version; undefined where it has one. */
  sealed: SealedVersion | undefined;
}

type Proof = { state: 'active' | 'unsafe' } & Pick<Proven, 'roleArn'> & Partial<Proven>;

/** What proofs of roles found, written with their audit records. The rows change in credential_proven() only. */
export class RoleStore {
  readonly #database: Pick<Database, 'asTenant'>;

  constructor(database: Pick<Database, 'asTenant'>) {
    this.#database = database;
  }

  /**
   * The credential may sign from now on. Role and account are pinned with its first version.
   * @param also runs in the same transaction.
   * @returns whether `sealed` is in use: of two who activate at once, one is.
   * @throws ServiceError credential.not_found | credential.not_usable | vault.unavailable when sealing took too long
   */
  activated(of: Of, proven: Proven, also: (tx: Tx) => Promise<void>): Promise<boolean> {
    return this.#database.asTenant(of.merchantId, async (tx) => {
      await record(tx, of, 'credential.activated', { outcome: 'allowed', body: { roleArn: proven.roleArn } });
      const verdict = await write(tx, of, { state: 'active', ...proven });
      if (verdict !== 'done' && verdict !== 'kept') throw refusalOf(verdict);
      const { sealed } = proven;
      if (verdict === 'done' && sealed !== undefined) await claimSecret(tx, sealed.secretName);
      await also(tx);
      return verdict === 'done';
    });
  }

  /**
   * The credential failed its proof: no call is admitted with it any more. One that was frozen meanwhile stays so, and is unsafe once thawed.
   * Before there is a version, role and account are shown but not pinned: the next proof may be of another role.
   * @throws ServiceError credential.not_found | credential.not_usable
   */
  foundUnsafe(of: Of, roleArn: string, lax: readonly string[]): Promise<void> {
    return this.#database.asTenant(of.merchantId, async (tx) => {
      await record(tx, of, 'credential.unsafe', { outcome: 'denied', body: { roleArn, lax } });
      const verdict = await write(tx, of, { state: 'unsafe', roleArn });
      if (verdict !== 'done' && verdict !== 'frozen') throw refusalOf(verdict);
    });
  }
}

async function record(
  tx: Tx,
  { actor, merchantId, credentialId }: Of,
  action: 'credential.activated' | 'credential.unsafe',
  what: { outcome: 'allowed' | 'denied'; body: Record<string, string | readonly string[]> },
): Promise<void> {
  const resource = `credential/${credentialId}`;
  await appendAudit(tx, merchantId, {
    actor: actor.subject,
    action,
    resource,
    requestId: actor.requestId,
    ...what,
  });
}

/** What credential_proven() answers. */
async function write(tx: Tx, { merchantId, credentialId }: Of, proof: Proof): Promise<string> {
  const { state, unsafeCount, roleArn, sealed } = proof;
  const found = JSON.stringify({
    state,
    unsafeCount,
    roleArn,
    accountId: accountOfRole(roleArn),
    keyHint: roleHint(roleArn),
    sealed: sealed === undefined ? null : { ...sealed, wrappedKey: sealed.wrappedKey.toString('hex') },
  });
  const [row] = await tx.$queryRaw<{ verdict: string }[]>`
    SELECT credential_proven(${merchantId}, ${credentialId}, ${found}::jsonb) AS verdict`;
  return row?.verdict ?? '';
}

function refusalOf(verdict: string): ServiceError {
  return REFUSALS[verdict]?.() ?? new ServiceError('internal', 'The proof of the role was not recorded.');
}

const REFUSALS: Readonly<Record<string, () => ServiceError>> = {
  credential: notFound,
  frozen: stillFrozen,
  role: otherRolePinned,
  changed: foundUnsafeMeanwhile,
};
