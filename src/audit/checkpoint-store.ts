import type { AuditEntry } from '../domain/audit.ts';
import type { MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import { appendAudit } from '../persistence/audit.ts';
import type { Database, Tx } from '../persistence/database.ts';
import type { ProvenCheckpoint, SignedCheckpoint } from './checkpoint.ts';
import { hex } from './hex.ts';

/** A checkpoint that waits for its signature. */
export interface DueCheckpoint {
  number: number;
  body: string;
  /** Chains that are behind where the last checkpoint saw them, or gone: somebody rewrote the database. */
  rewound: number;
}

/** A row as the verifier reads it. */
export interface StoredCheckpoint extends SignedCheckpoint {
  number: number;
  /** Salts come from it. */
  blind: Buffer;
}

export interface StoredLeaf {
  number: number;
  seq: number;
  hash: string;
}

interface SignedRow {
  number: bigint;
  body: string;
  signature: Uint8Array;
  keyId: string;
  publicKey: string;
}

interface Waiting {
  unsigned: number;
  uncopied: number;
  newest: number;
  behind: boolean;
}

const SIGNED = Prisma.sql`number, body, signature, key_id AS "keyId", public_key AS "publicKey"`;
/** To make one reads all heads: about a second for 100,000 chains. */
const BEGIN_MS = 60_000;

/** Checkpoints in Postgres. All that writes is in functions of prisma/migrations, so any number of replicas may call at one time. */
export class CheckpointStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** What is to be signed now, leased to this caller; undefined when nothing is due or another has it. @throws ServiceError ledger.unavailable */
  begin(due: {
    origin: string;
    everyMs: number;
    events: number;
    leaseMs: number;
  }): Promise<DueCheckpoint | undefined> {
    const { origin, everyMs, events, leaseMs } = due;
    // No tenant: the function is the notary's.
    return this.#database.asTenant(
      '' as MerchantId,
      async (tx) => {
        const [row] = await tx.$queryRaw<
          { number: bigint; body: string; rewound: bigint }[]
        >`SELECT number, body, rewound FROM audit_checkpoint_begin(${origin}, ${everyMs / 1_000}::double precision, ${events}::bigint, ${leaseMs / 1_000}::double precision)`;
        return row && { ...row, number: Number(row.number), rewound: Number(row.rewound) };
      },
      { timeoutMs: BEGIN_MS },
    );
  }

  /** False when another signed it first. */
  async sign(number: number, { signature, keyId, publicKey }: SignedCheckpoint): Promise<boolean> {
    const [row] = await this.#database.query<{ done: boolean }>(
      Prisma.sql`SELECT audit_checkpoint_sign(${number}::bigint, ${Buffer.from(signature, 'base64')}, ${keyId}, ${publicKey}) AS done`,
    );
    return row?.done === true;
  }

  /** Signed ones that are to be copied now, leased to this caller, oldest first. */
  async take(limit: number, leaseMs: number): Promise<(SignedCheckpoint & { number: number })[]> {
    const rows = await this.#database.query<SignedRow>(
      Prisma.sql`WITH taken AS (SELECT audit_checkpoints_take(${limit}::int, ${leaseMs / 1_000}::double precision) AS number)
        SELECT ${SIGNED} FROM audit_checkpoints WHERE number IN (SELECT number FROM taken) ORDER BY number`,
    );
    return rows.map((row) => ({ number: Number(row.number), ...toSigned(row) }));
  }

  async copied(number: number): Promise<void> {
    await this.#database.query(Prisma.sql`SELECT audit_checkpoint_copied(${number}::bigint) IS NULL AS done`);
  }

  /**
   * How long the oldest that is not signed, or not copied, has waited: milliseconds, by the database's clock. And whether there is anything that
   * the newest one, signed or not, does not have.
   */
  async waiting(): Promise<{ unsignedMs: number; uncopiedMs: number; newest: number; behind: boolean }> {
    const [row] = await this.#database.query<Waiting>(Prisma.sql`
      SELECT coalesce(max(extract(epoch FROM clock_timestamp() - at)) FILTER (WHERE signature IS NULL), 0)::float8 AS unsigned,
        coalesce(max(extract(epoch FROM clock_timestamp() - signed_at)) FILTER (WHERE signature IS NOT NULL AND copied_at IS NULL), 0)::float8 AS uncopied,
        coalesce(max(number), 0)::float8 AS newest, audit_checkpoint_behind() AS behind
      FROM ((SELECT * FROM audit_checkpoints ORDER BY number DESC LIMIT 1)
        UNION (SELECT * FROM audit_checkpoints WHERE signature IS NOT NULL AND copied_at IS NULL ORDER BY number LIMIT 1)) AS edge`);
    const { unsigned = 0, uncopied = 0, newest = 0, behind = false } = row ?? {};
    return { unsignedMs: unsigned * 1_000, uncopiedMs: uncopied * 1_000, newest, behind };
  }

  /**
   * The newest signed checkpoint with the proof of this chain, read and recorded in one transaction: what is not recorded is not read.
   * @returns also the sequence number of the record.
   */
  read(
    chain: MerchantId,
    entry: AuditEntry,
  ): Promise<{ recorded: number; checkpoint: ProvenCheckpoint | undefined }> {
    return this.#database.asTenant(chain, async (tx) => {
      const recorded = await appendAudit(tx, chain, entry);
      return { recorded, checkpoint: await newestProven(tx, chain) };
    });
  }

  /** Signed checkpoints in their order, for the verifier. */
  async page(after: number, limit: number): Promise<StoredCheckpoint[]> {
    const rows = await this.#database.query<SignedRow & { blind: Uint8Array }>(
      Prisma.sql`SELECT ${SIGNED}, blind FROM audit_checkpoints
        WHERE number > ${after}::bigint AND signature IS NOT NULL ORDER BY number LIMIT ${limit}::int`,
    );
    return rows.map((row) => ({
      number: Number(row.number),
      blind: Buffer.from(row.blind),
      ...toSigned(row),
    }));
  }

  /** The number of the checkpoint from which a chain's leaf is in force at this one; 0 when it has none yet. */
  async leafAt(chain: MerchantId, number: number): Promise<number> {
    const [row] = await this.#database.asTenant(
      chain,
      (tx) => tx.$queryRaw<{ number: bigint | null }[]>`
        SELECT max(number) AS number FROM audit_leaves WHERE merchant_id = ${chain} AND number <= ${number}::bigint`,
    );
    return Number(row?.number ?? 0);
  }

  /** A chain's leaves in the order of their checkpoints, for the verifier. */
  leaves(chain: MerchantId, after: number, limit: number): Promise<StoredLeaf[]> {
    return this.#database.asTenant(chain, async (tx) => {
      const rows = await tx.$queryRaw<{ number: bigint; seq: bigint; hash: Uint8Array }[]>`
        SELECT number, seq, hash FROM audit_leaves WHERE merchant_id = ${chain} AND number > ${after}::bigint ORDER BY number LIMIT ${limit}::int`;
      return rows.map(({ number, seq, hash }) => ({
        number: Number(number),
        seq: Number(seq),
        hash: hex(hash),
      }));
    });
  }
}

async function newestProven(tx: Tx, chain: MerchantId): Promise<ProvenCheckpoint | undefined> {
  const [row] = await tx.$queryRaw<
    (SignedRow & { seq: bigint; hash: Uint8Array; salt: Uint8Array; index: bigint; path: Uint8Array[] })[]
  >`SELECT c.number, c.body, c.signature, c.key_id AS "keyId", c.public_key AS "publicKey", p.seq, p.hash, p.salt, p.leaf_index AS index, p.path
    FROM audit_checkpoint_proof() AS p JOIN audit_checkpoints c ON c.number = p.number`;
  if (row === undefined) return undefined;
  const leaf = {
    merchantId: chain,
    seq: Number(row.seq),
    hash: hex(row.hash),
    salt: hex(row.salt),
    index: Number(row.index),
    path: row.path.map(hex),
  };
  return { ...toSigned(row), leaf };
}

function toSigned({ body, signature, keyId, publicKey }: SignedRow): SignedCheckpoint {
  return { body, signature: Buffer.from(signature).toString('base64'), keyId, publicKey };
}
