import type { Actor } from '../domain/audit.ts';
import type { AwsIdentity } from '../domain/credential.ts';
import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database } from '../persistence/database.ts';
import { assertMerchantActive } from './openable-version-store.ts';
import { toRecord } from './rotation-record.ts';
import type {
  BeginAnswer,
  DueRotation,
  RotationChange,
  RotationMode,
  RotationName,
  RotationRecord,
  RotationRules,
  RotationState,
} from './rotation-state.ts';
import type { SealedVersion, VersionLabels } from './secret-vault.ts';
import type { CurrentVersion } from './stored-credential.ts';

/** How long a step is one process's alone. Where its calls to AWS take longer, another goes on with it, and it finds that so. Seconds. */
const LEASE_SECONDS = 60;
/** A pending rotation that is older has lost its material or waits for what does not come. Seconds. */
const PENDING_SECONDS = 600;
/** How long an operator's word on another account holds. Seconds. */
const APPROVED_SECONDS = 86_400;
/** Changes are told to every process for this long, so that none that was away for a moment misses one. Seconds. */
const CHANGED_SECONDS = 15;

type ChangeRow = {
  merchant_id: string;
  credential_id: string;
  version: number;
  state: RotationState;
  shredded: number | null;
};

/** The steps of rotations: each is one function of the database (prisma/migrations), with its audit record in the same commit. */
export class RotationStore {
  readonly #database: Database;
  readonly #rules: Record<'overlapSeconds' | 'minIntervalSeconds' | 'leaseSeconds', number>;

  constructor(database: Database, { overlapMs, minIntervalMs }: Omit<RotationRules, 'keyGraceMs'>) {
    this.#database = database;
    this.#rules = {
      overlapSeconds: overlapMs / 1_000,
      minIntervalSeconds: minIntervalMs / 1_000,
      leaseSeconds: LEASE_SECONDS,
    };
  }

  async begin(
    actor: Actor,
    { merchantId, credentialId }: Omit<RotationName, 'version'>,
    { mode, secretVersionId }: { mode: RotationMode; secretVersionId: string },
  ): Promise<BeginAnswer> {
    const rules = JSON.stringify({ ...this.#rules, mode, secretVersionId });
    const answer = await this.#one<BeginAnswer>(
      Prisma.sql`rotation_begin(${merchantId}, ${credentialId}, ${rules}::jsonb, ${actor.subject}, ${actor.requestId})`,
    );
    if (answer.verdict !== 'begun') return answer;
    const { verdict, ...begun } = answer as unknown as { verdict: 'begun' } & BegunRow;
    const replaced = { merchantId, credentialId, version: begun.replaces };
    const { kmsKeyArn } = await this.#database.asTenant(merchantId, (tx) =>
      tx.credentialVersion.findUniqueOrThrow({ where: { merchantId_credentialId_version: replaced } }),
    );
    return { verdict, rotation: { merchantId, credentialId, secretVersionId, kmsKeyArn, ...begun } };
  }

  /** The new version is sealed: from here on any process can go on with it. @returns false when the rotation is over. */
  sealed(name: RotationName, { wrappedKey, kmsKeyArn }: SealedVersion, keyHint: string): Promise<boolean> {
    const facts = JSON.stringify({ kmsKeyArn, keyHint });
    return this.#one(
      Prisma.sql`rotation_sealed(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${Uint8Array.from(wrappedKey)}, ${facts}::jsonb)`,
    );
  }

  /**
   * Writes that the pending version is about to be opened, and gives out its wrapped key with that committed; undefined when there is none.
   * @throws ServiceError merchant.not_active
   */
  openPending(actor: Actor, name: RotationName): Promise<SealedVersion | undefined> {
    const { merchantId, credentialId, version } = name;
    return this.#database.asTenant(merchantId, async (tx) => {
      const row = await tx.credentialVersion.findFirst({
        where: { merchantId, credentialId, version, state: 'pending' },
      });
      if (row?.wrappedKey == null) return undefined;
      await appendAudit(tx, merchantId, {
        actor: actor.subject,
        action: 'credential.opened',
        resource: `credential/${credentialId}`,
        outcome: 'allowed',
        requestId: actor.requestId,
        body: { version },
      });
      await assertMerchantActive(merchantId, tx);
      const { kmsKeyArn, secretName, secretVersionId } = row;
      return { wrappedKey: Buffer.from(row.wrappedKey), kmsKeyArn, secretName, secretVersionId };
    });
  }

  /** @returns `promoted`; `account` when it is of another one and nobody approved that; `missing`, or how the rotation stands. */
  promote(
    actor: Actor,
    name: RotationName,
    found: AwsIdentity & { warnings: readonly string[] },
  ): Promise<RotationState | 'promoted' | 'account' | 'missing'> {
    const [rules, facts] = [JSON.stringify(this.#rules), JSON.stringify(found)];
    return this.#one(
      Prisma.sql`rotation_promote(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${rules}::jsonb, ${facts}::jsonb, ${actor.subject}, ${actor.requestId})`,
    );
  }

  /** @param reason an error code, or a word of ours. @returns false when it is not pending any more. */
  fail(actor: Actor, name: RotationName, reason: string): Promise<boolean> {
    return this.#one(
      Prisma.sql`rotation_fail(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${reason}, ${actor.subject}, ${actor.requestId})`,
    );
  }

  /** @returns the version that is current again; null when there is no way back. */
  rollBack(
    actor: Actor,
    { merchantId, credentialId }: Omit<RotationName, 'version'>,
  ): Promise<number | null> {
    return this.#one(
      Prisma.sql`rotation_rollback(${merchantId}, ${credentialId}, ${LEASE_SECONDS}::double precision, ${actor.subject}, ${actor.requestId})`,
    );
  }

  /** @returns false when it is not time. */
  retire(actor: Actor, name: RotationName): Promise<boolean> {
    return this.#one(
      Prisma.sql`rotation_retire(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${actor.subject}, ${actor.requestId})`,
    );
  }

  /** The labels are where this state wants them. @returns false when the rotation has gone on meanwhile. */
  labelled(name: RotationName, state: RotationState): Promise<boolean> {
    return this.#one(
      Prisma.sql`rotation_labelled(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${state})`,
    );
  }

  /** Which rotations wait for somebody, oldest first, past the first so many. */
  async due(limit: number, past: number): Promise<RotationName[]> {
    const rows = await this.#database.query<ChangeRow>(
      Prisma.sql`SELECT * FROM rotations_due_past(${limit}::integer, ${past}::integer)`,
    );
    return rows.map(toName);
  }

  /** Overlaps that are over, longest first. */
  async over(limit: number): Promise<RotationName[]> {
    const rows = await this.#database.query<ChangeRow>(
      Prisma.sql`SELECT * FROM rotations_over(${limit}::integer)`,
    );
    return rows.map(toName);
  }

  /** Takes one that is due; undefined when another process has it. */
  async take(name: RotationName): Promise<DueRotation | undefined> {
    const taken = await this.#one<Omit<DueRotation, keyof RotationName> | null>(
      Prisma.sql`rotation_take(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${LEASE_SECONDS}::double precision, ${PENDING_SECONDS}::double precision)`,
    );
    return taken === null ? undefined : { ...name, ...taken };
  }

  /** Lets the others go before one that could not be taken. @returns false when it is not due any more. */
  putOff({ merchantId, credentialId, version }: RotationName): Promise<boolean> {
    const seconds = LEASE_SECONDS;
    return this.#one(
      Prisma.sql`rotation_put_off(${merchantId}, ${credentialId}, ${version}::integer, ${seconds}::float8)`,
    );
  }

  async changed(): Promise<RotationChange[]> {
    const rows = await this.#database.query<ChangeRow>(
      Prisma.sql`SELECT * FROM rotations_changed(${CHANGED_SECONDS}::double precision)`,
    );
    return rows.map((row) => ({ ...toName(row), state: row.state, shredded: row.shredded }));
  }

  /** @returns false when there is no such credential. */
  approveAccount(
    actor: Actor,
    { merchantId, credentialId }: Omit<RotationName, 'version'>,
    approval: { accountId: string; reason: string },
  ): Promise<boolean> {
    const rules = JSON.stringify({ seconds: APPROVED_SECONDS, reason: approval.reason });
    return this.#one(
      Prisma.sql`rotation_approve_account(${merchantId}, ${credentialId}, ${approval.accountId}, ${rules}::jsonb, ${actor.subject}, ${actor.requestId})`,
    );
  }

  /** @returns the other account that the next rotation may move to, while an operator's word holds. */
  approvedAccount(merchantId: MerchantId, credentialId: CredentialId): Promise<string | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const [row] = await tx.$queryRaw<{ account: string }[]>`
        SELECT approved_account_id AS account FROM credentials
        WHERE merchant_id = ${merchantId} AND id = ${credentialId} AND approved_until > clock_timestamp()`;
      return row?.account;
    });
  }

  /** How one stands. */
  stateOf({ merchantId, credentialId, version }: RotationName): Promise<RotationState | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const row = await tx.credentialRotation.findFirst({ where: { merchantId, credentialId, version } });
      return row?.state as RotationState | undefined;
    });
  }

  /** The latest one; undefined when there was none. */
  latest(merchantId: MerchantId, credentialId: CredentialId): Promise<RotationRecord | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const row = await tx.credentialRotation.findFirst({
        where: { merchantId, credentialId },
        orderBy: { version: 'desc' },
      });
      return row === null ? undefined : toRecord(row);
    });
  }

  /** Where the labels of a credential's secret belong; undefined when all of it is shredded. */
  labelsOf(
    merchantId: MerchantId,
    credentialId: CredentialId,
  ): Promise<{ secretName: string; labels: VersionLabels } | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const rows = await tx.credentialVersion.findMany({
        where: { merchantId, credentialId, state: { in: ['current', 'previous'] } },
        select: { state: true, secretName: true, secretVersionId: true },
      });
      const pending = await tx.credentialRotation.findFirst({
        where: { merchantId, credentialId, state: 'pending' },
        select: { secretVersionId: true },
      });
      const current = rows.find(({ state }) => state === 'current');
      if (current === undefined) return undefined;
      const previous = rows.find(({ state }) => state === 'previous')?.secretVersionId;
      return {
        secretName: current.secretName,
        labels: { current: current.secretVersionId, previous, pending: pending?.secretVersionId },
      };
    });
  }

  /** The other version that may sign calls now; undefined when there is none. */
  other(
    merchantId: MerchantId,
    credentialId: CredentialId,
    version: number,
  ): Promise<CurrentVersion | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const [row] = await tx.$queryRaw<{ version: number; region: string; account: string | null }[]>`
        SELECT v.version, c.region, coalesce(v.account_id, c.account_id) AS account
        FROM credential_versions v JOIN credentials c ON c.merchant_id = v.merchant_id AND c.id = v.credential_id AND c.state = 'active'
        WHERE v.merchant_id = ${merchantId} AND v.credential_id = ${credentialId} AND v.version <> ${version}::integer
          AND (v.state = 'current' OR (v.state = 'previous' AND v.overlap_until > clock_timestamp()))`;
      return row && { version: row.version, region: row.region, accountId: row.account ?? undefined };
    });
  }

  async #one<Value>(call: Prisma.Sql): Promise<Value> {
    const [row] = await this.#database.query<{ value: Value }>(Prisma.sql`SELECT ${call} AS value`);
    if (row === undefined) throw new Error('the database answered nothing');
    return row.value;
  }
}

interface BegunRow {
  version: number;
  replaces: number;
  secretName: string;
}

function toName(row: ChangeRow): RotationName {
  return {
    merchantId: row.merchant_id as MerchantId,
    credentialId: row.credential_id as CredentialId,
    version: row.version,
  };
}
