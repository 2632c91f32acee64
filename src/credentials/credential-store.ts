import { askingAws } from '../domain/audit.ts';
import type { Actor, AskedAbout, AuditEntry } from '../domain/audit.ts';
import type { CredentialKind, CredentialState } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import type { Credential as Row } from '../generated/prisma/client.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database, Tx } from '../persistence/database.ts';
import { assertActive, notFound } from './credential-state.ts';
import { claimSecret, leaveSecrets } from './leftover-store.ts';
import { assertUsable, openableVersion, stateOf } from './openable-version-store.ts';
import type { SealedVersion } from './secret-vault.ts';
import type { CurrentVersion, StoredCredential, TestResult } from './stored-credential.ts';

/** A transaction of one merchant, as `inTransaction` or the caller's own `Database.asTenant` opens it. */
export type CredentialTx = Tx;

const DAY_MS = 86_400_000;
/** A role holds no key that could grow old. */
const HOLDS_KEY: ReadonlySet<string> = new Set(['access-key', 'bedrock-api-key'] satisfies CredentialKind[]);

/** A credential on its way into the database: sealed as version 1, or a role that waits for its proof and has none yet. */
export interface NewCredential {
  id: CredentialId;
  name: string;
  kind: CredentialKind;
  region: string;
  accountId: string | undefined;
  principalArn: string | undefined;
  keyHint: string;
  externalId: string | undefined;
  sealed: SealedVersion | undefined;
}

/**
 * The credentials of one merchant at a time: row security hides all others, and each statement names the merchant as well.
 * Audit first, then the change, in one transaction: both or neither. The audit head is the first lock of each, as in ledger_hold().
 */
export class CredentialStore {
  readonly #database: Database;
  readonly #rotationDays: number;

  /** @param options.rotationDays after which a key is due to be exchanged; 0, the default, for never. */
  constructor(database: Database, { rotationDays = 0 }: { rotationDays?: number } = {}) {
    this.#database = database;
    this.#rotationDays = rotationDays;
  }

  inTransaction<T>(merchantId: MerchantId, work: (tx: CredentialTx) => Promise<T>): Promise<T> {
    return this.#database.asTenant(merchantId, work);
  }

  /** Not the default yet, whatever it is going to be: see `setDefault`. */
  async insert(merchantId: MerchantId, tx: CredentialTx, actor: Actor, added: NewCredential): Promise<void> {
    const { id, name, kind, region, keyHint, sealed } = added;
    const version = sealed === undefined ? 0 : 1;
    const body = { kind, region, keyHint, accountId: added.accountId ?? null, version };
    await appendAudit(tx, merchantId, entry(actor, 'credential.created', id, body));
    await tx.credential.create({
      data: {
        merchantId,
        id,
        name,
        kind,
        region,
        keyHint,
        accountId: added.accountId ?? null,
        principalArn: added.principalArn ?? null,
        externalId: added.externalId ?? null,
        state: sealed === undefined ? 'pending' : 'active',
        currentVersion: version,
        createdBy: actor.subject,
      },
      select: { id: true },
    });
    if (sealed === undefined) return;
    const { kmsKeyArn, secretName, secretVersionId } = sealed;
    await claimSecret(tx, secretName);
    const wrappedKey = Uint8Array.from(sealed.wrappedKey);
    const place = { merchantId, credentialId: id, version };
    await tx.credentialVersion.create({
      data: { ...place, state: 'current', wrappedKey, kmsKeyArn, secretName, secretVersionId },
      select: { version: true },
    });
  }

  /** All that are not deleted, oldest first. A merchant has a handful: each costs the operator money at AWS. */
  list(merchantId: MerchantId): Promise<StoredCredential[]> {
    return this.inTransaction(merchantId, async (tx) => {
      const defaultId = await defaultOf(merchantId, tx);
      const rows = await tx.credential.findMany({
        where: { merchantId, state: { not: 'deleted' } },
        orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
      });
      const due = await this.#dueDates(merchantId, tx, rows);
      return rows.map((row) => ({ ...toStored(row, defaultId), rotationDueAt: due.get(row.id) }));
    });
  }

  /** @throws ServiceError credential.not_found, also for deleted ones and those of another merchant. */
  get(merchantId: MerchantId, credentialId: CredentialId): Promise<StoredCredential> {
    return this.inTransaction(merchantId, async (tx) => {
      const row = await tx.credential.findFirst({
        where: { merchantId, id: credentialId, state: { not: 'deleted' } },
      });
      if (row === null) throw notFound();
      const due = await this.#dueDates(merchantId, tx, [row]);
      return { ...toStored(row, await defaultOf(merchantId, tx)), rotationDueAt: due.get(row.id) };
    });
  }

  /**
   * What a call needs to know before the secret is opened. Remembered for a minute by Vault.current; whether it is still so is decided by what admits the call.
   * @throws ServiceError credential.not_found | credential.not_usable when it is not active
   */
  current(merchantId: MerchantId, credentialId: CredentialId): Promise<CurrentVersion> {
    return this.inTransaction(merchantId, async (tx) => {
      const row = await tx.credential.findFirst({
        where: { merchantId, id: credentialId, state: { not: 'deleted' } },
        select: { state: true, currentVersion: true, region: true, accountId: true },
      });
      if (row === null) throw notFound();
      assertActive(row.state as CredentialState);
      return { version: row.currentVersion, region: row.region, accountId: row.accountId ?? undefined };
    });
  }

  /** @throws ServiceError credential.not_found | credential.not_usable */
  async setDefault(
    merchantId: MerchantId,
    tx: CredentialTx,
    actor: Actor,
    credentialId: CredentialId,
  ): Promise<void> {
    await appendAudit(tx, merchantId, entry(actor, 'credential.made_default', credentialId));
    assertActive(await stateOf(merchantId, tx, credentialId));
    await tx.merchant.updateMany({
      where: { id: merchantId },
      data: { defaultCredentialId: credentialId },
    });
  }

  /**
   * Writes that a secret is about to be opened, and gives out the wrapped key only with that record committed.
   * @throws ServiceError credential.not_found, or credential.not_usable when it is not active, or the version neither current nor in its
   *   overlap; merchant.not_active.
   */
  recordOpening(
    merchantId: MerchantId,
    actor: Actor,
    credentialId: CredentialId,
    version: number,
  ): Promise<SealedVersion> {
    return this.inTransaction(merchantId, async (tx) => {
      await appendAudit(tx, merchantId, entry(actor, 'credential.opened', credentialId, { version }));
      return openableVersion(merchantId, tx, credentialId, version);
    });
  }

  /**
   * Writes that what was opened before is used because the vault does not answer.
   * @throws ServiceError as `recordOpening`: then it must not be used.
   */
  recordStaleUse(
    merchantId: MerchantId,
    actor: Actor,
    credentialId: CredentialId,
    version: number,
  ): Promise<void> {
    return this.inTransaction(merchantId, async (tx) => {
      await appendAudit(tx, merchantId, entry(actor, 'credential.used_stale', credentialId, { version }));
      await openableVersion(merchantId, tx, credentialId, version);
    });
  }

  /**
   * Writes that AWS is about to be asked something with a credential, by the service itself: what was opened before is no leave to use it.
   * @throws ServiceError merchant.not_active | credential.not_found | credential.not_usable: then nothing may be asked, and nothing is written.
   */
  recordAsking(
    merchantId: MerchantId,
    actor: Actor,
    credentialId: CredentialId,
    about: AskedAbout,
  ): Promise<void> {
    return this.inTransaction(merchantId, async (tx) => {
      await appendAudit(tx, merchantId, askingAws(actor, about, { source: 'stored', credentialId }));
      await assertUsable(merchantId, tx, credentialId);
    });
  }

  /** @throws ServiceError credential.not_found */
  markTested(
    merchantId: MerchantId,
    actor: Actor,
    credentialId: CredentialId,
    test: { result: TestResult; outcome: AuditEntry['outcome'] },
  ): Promise<void> {
    return this.inTransaction(merchantId, async (tx) => {
      const tested = entry(actor, 'credential.tested', credentialId, { result: test.result });
      await appendAudit(tx, merchantId, { ...tested, outcome: test.outcome });
      const changed = await tx.$executeRaw`
        UPDATE credentials SET tested_at = clock_timestamp(), test_result = ${test.result}
        WHERE merchant_id = ${merchantId} AND id = ${credentialId} AND state <> 'deleted'`;
      if (changed === 0) throw notFound();
    });
  }

  /**
   * Deletes a credential for good: with its wrapped keys gone, what Secrets Manager still holds cannot be opened by anyone.
   * Calls that were admitted before this commits may still use it; none is admitted after.
   * @returns the names of the secrets that are now noise: written down in the same transaction, so that they are removed whoever dies.
   * @throws ServiceError credential.not_found
   */
  delete(merchantId: MerchantId, actor: Actor, credentialId: CredentialId): Promise<string[]> {
    return this.inTransaction(merchantId, async (tx) => {
      await appendAudit(tx, merchantId, entry(actor, 'credential.deleted', credentialId));
      const deleted = await tx.$executeRaw`
        UPDATE credentials SET state = 'deleted', deleted_at = clock_timestamp()
        WHERE merchant_id = ${merchantId} AND id = ${credentialId} AND state <> 'deleted'`;
      if (deleted === 0) throw notFound();
      await tx.merchant.updateMany({
        where: { id: merchantId, defaultCredentialId: credentialId },
        data: { defaultCredentialId: null },
      });
      const destroyed = await tx.$queryRaw<{ secret_name: string }[]>`
        UPDATE credential_versions SET state = 'destroyed', wrapped_key = NULL, destroyed_at = clock_timestamp()
        WHERE merchant_id = ${merchantId} AND credential_id = ${credentialId} AND state <> 'destroyed'
        RETURNING secret_name`;
      const secretNames = [...new Set(destroyed.map((version) => version.secret_name))];
      await leaveSecrets(tx, secretNames);
      return secretNames;
    });
  }

  /** By id, of those that are due one day: the same kinds as in rotation_alerts(). */
  async #dueDates(
    merchantId: MerchantId,
    tx: CredentialTx,
    rows: readonly Row[],
  ): Promise<Map<string, Date>> {
    const ids = rows.filter(({ kind }) => HOLDS_KEY.has(kind)).map(({ id }) => id);
    if (this.#rotationDays === 0 || ids.length === 0) return new Map();
    const versions = await tx.credentialVersion.findMany({
      where: { merchantId, credentialId: { in: ids }, state: 'current' },
      select: { credentialId: true, createdAt: true },
    });
    const dueAt = (createdAt: Date) => new Date(createdAt.getTime() + this.#rotationDays * DAY_MS);
    return new Map(versions.map(({ credentialId, createdAt }) => [credentialId, dueAt(createdAt)]));
  }
}

async function defaultOf(merchantId: MerchantId, tx: CredentialTx): Promise<string | null> {
  const merchant = await tx.merchant.findUnique({
    where: { id: merchantId },
    select: { defaultCredentialId: true },
  });
  return merchant?.defaultCredentialId ?? null;
}

function toStored(row: Row, defaultId: string | null): Omit<StoredCredential, 'rotationDueAt'> {
  return {
    id: row.id as CredentialId,
    name: row.name,
    kind: row.kind as CredentialKind,
    state: row.state as CredentialState,
    region: row.region,
    accountId: row.accountId ?? undefined,
    principalArn: row.principalArn ?? undefined,
    externalId: row.externalId ?? undefined,
    unsafeCount: row.unsafeCount,
    keyHint: row.keyHint,
    version: row.currentVersion,
    isDefault: row.id === defaultId,
    createdBy: row.createdBy,
    createdAt: row.createdAt,
    testedAt: row.testedAt ?? undefined,
    testResult: (row.testResult ?? undefined) as TestResult | undefined,
  };
}

function entry(
  actor: Actor,
  action: AuditEntry['action'],
  credentialId: CredentialId,
  body: NonNullable<AuditEntry['body']> = {},
): AuditEntry {
  const resource = `credential/${credentialId}`;
  return {
    actor: actor.subject,
    action,
    resource,
    outcome: 'allowed',
    requestId: actor.requestId,
    body,
  };
}
