import type { CredentialId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { KeyState, RotationName, RotationRules } from './rotation-state.ts';

/** What is known of the key at IAM that a rotation left over: the one it replaced, or the one it made. */
export interface UnneededKey {
  /** ARNs of the IAM user whose it is, as STS said before the rotation and after. */
  principals: readonly string[];
  /** The credential was rotated to it since: it is its owner's again. */
  takenBack: boolean;
  /** IAM was asked to delete it, and it is not known that it refused. */
  deletionAsked: boolean;
  /** Null where the process died before it could tell. */
  keyHint: string | null;
  /** When a new key was about to be asked for; null: never. */
  askedAt: Date | null;
  /** It was made so short a while ago that IAM may not list it yet. */
  fresh: boolean;
  /** Another rotation of the credential is being tested: a key that is not known yet may be its. */
  pending: boolean;
  /** Hints of keys that sign, or are about to. */
  live: readonly string[];
  /** Hints of all keys that the credential ever had. */
  known: readonly string[];
}

/** What is known of the keys at IAM that rotations left over. */
export class RotationKeyStore {
  readonly #database: Database;
  readonly #graceSeconds: number;

  constructor(database: Database, { keyGraceMs }: Pick<RotationRules, 'keyGraceMs'>) {
    this.#database = database;
    this.#graceSeconds = keyGraceMs / 1_000;
  }

  /** Writes that a new key is about to be asked for. @returns false when the rotation is over, so that none may be. */
  keyAsked(name: RotationName): Promise<boolean> {
    return this.#note(name, 'asked', null);
  }

  /** IAM made none. */
  keyRefused(name: RotationName): Promise<boolean> {
    return this.#note(name, 'refused', null);
  }

  /** Writes which key the rotation made. */
  keyMade(name: RotationName, keyHint: string): Promise<boolean> {
    return this.#note(name, 'made', keyHint);
  }

  /** Writes that IAM is about to be asked to delete the key. @returns false when it is not ours to delete any more: then it must not be. */
  deletionAsked(name: RotationName): Promise<boolean> {
    return this.#deletion(name, true);
  }

  /** IAM did not delete it. */
  deletionRefused(name: RotationName): Promise<boolean> {
    return this.#deletion(name, false);
  }

  /** Writes what was done at IAM with the key that a rotation left over. */
  async keyDone(name: RotationName, state: KeyState): Promise<boolean> {
    const [row] = await this.#database.query<{ done: boolean }>(
      Prisma.sql`SELECT rotation_key_done(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${state}, ${this.#graceSeconds}::double precision) AS done`,
    );
    return row?.done === true;
  }

  /** Keys at IAM that were deactivated, wait to be deleted, and are this user's. */
  leftKeys(
    merchantId: MerchantId,
    credentialId: CredentialId,
    principalArn: string | undefined,
  ): Promise<(RotationName & { keyHint: string | null })[]> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const rows = await tx.$queryRaw<{ version: number; hint: string | null }[]>`
        WITH ${unneededOf(merchantId, credentialId)}
        SELECT version, hint FROM unneeded
        WHERE key_state = 'deactivated' AND NOT taken_back AND ${principalArn ?? null}::text = ANY (principals)`;
      return rows.map(({ version, hint }) => ({ merchantId, credentialId, version, keyHint: hint }));
    });
  }

  /** The key that a rotation of mode `iam`, which is over, left over. */
  unneededKey({ merchantId, credentialId, version }: RotationName): Promise<UnneededKey> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const [row] = await tx.$queryRaw<UnneededKey[]>`
        WITH ${unneededOf(merchantId, credentialId)}
        SELECT r.hint AS "keyHint", r.principals, r.taken_back AS "takenBack", r.key_asked_at AS "askedAt",
          r.key_deletion_asked_at IS NOT NULL AS "deletionAsked",
          r.state <> 'retired' AND r.ended_at > clock_timestamp() - interval '5 minutes' AS fresh,
          EXISTS (SELECT 1 FROM unneeded WHERE state = 'pending') AS pending,
          ARRAY(SELECT hint FROM versions WHERE is_live) AS live,
          ARRAY(SELECT key_hint FROM versions WHERE key_hint IS NOT NULL UNION SELECT made_key FROM unneeded WHERE made_key IS NOT NULL) AS known
        FROM unneeded r WHERE r.version = ${version}::integer`;
      if (row === undefined) throw new Error('the rotation is not on record');
      return row;
    });
  }

  async #deletion(name: RotationName, asked: boolean): Promise<boolean> {
    const [row] = await this.#database.query<{ noted: boolean }>(
      Prisma.sql`SELECT rotation_key_deletion(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${asked}) AS noted`,
    );
    return row?.noted === true;
  }

  async #note(name: RotationName, note: 'asked' | 'refused' | 'made', keyHint: string | null) {
    const [row] = await this.#database.query<{ noted: boolean }>(
      Prisma.sql`SELECT rotation_key_noted(${name.merchantId}, ${name.credentialId}, ${name.version}::integer, ${note}, ${keyHint}) AS noted`,
    );
    return row?.noted === true;
  }
}

/**
 * Tables of a WITH: the credential's `versions`, each with its key and whose that is, and `unneeded`, its rotations, each with the key that it
 * leaves over when it is over. Of the current version its credential says whose it is.
 */
function unneededOf(merchantId: MerchantId, credentialId: CredentialId): Prisma.Sql {
  return Prisma.sql`
    versions AS (
      SELECT w.*, coalesce(w.key_hint, c.key_hint) AS hint, w.state IN ('pending', 'current', 'previous') AS is_live,
        CASE w.version WHEN c.current_version THEN c.principal_arn ELSE w.principal_arn END AS principal
      FROM credential_versions w JOIN credentials c ON c.merchant_id = w.merchant_id AND c.id = w.credential_id
      WHERE w.merchant_id = ${merchantId} AND w.credential_id = ${credentialId}),
    hinted AS (
      SELECT r.*, CASE r.state WHEN 'retired' THEN v.key_hint ELSE coalesce(r.made_key, v.key_hint) END AS hint
      FROM credential_rotations r LEFT JOIN versions v ON v.version = CASE r.state WHEN 'retired' THEN r.replaces ELSE r.version END
      WHERE r.merchant_id = ${merchantId} AND r.credential_id = ${credentialId}),
    unneeded AS (
      SELECT r.*, ARRAY(SELECT w.principal FROM versions w WHERE w.version IN (r.replaces, r.version) AND w.principal IS NOT NULL) AS principals,
        EXISTS (SELECT 1 FROM versions w WHERE w.hint = r.hint AND (w.version > r.version OR w.is_live)) AS taken_back
      FROM hinted r)`;
}
