import type { CallId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';

/** What is known of the call that an Idempotency-Key belongs to. */
export interface FirstCall {
  callId: CallId;
  state: 'held' | 'settled' | 'void' | 'unknown';
  /** Its answer, sealed, while it is kept. */
  sealed: Uint8Array | undefined;
}

/** The answers of calls that carried an Idempotency-Key. `keyHash` is the SHA-256 of the key. */
export class AnswerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Keeps an answer for 24 hours, with the name of the key that seals it; false when the key belongs to another attempt by now. @throws ServiceError ledger.unavailable */
  async keep(
    merchantId: MerchantId,
    answer: { callId: CallId; keyHash: Uint8Array; sealed: Uint8Array; keyId: Uint8Array },
  ): Promise<boolean> {
    const { callId, keyHash, sealed, keyId } = answer;
    const rows = await this.#database.query<{ kept: boolean }>(
      Prisma.sql`SELECT answer_keep_under(${merchantId}, ${callId}::uuid, ${keyHash}, ${sealed}, ${keyId}) AS kept`,
    );
    return rows[0]?.kept === true;
  }

  /** The call that has this key, of the latest attempt. @throws ServiceError ledger.unavailable */
  find(merchantId: MerchantId, keyHash: Uint8Array): Promise<FirstCall | undefined> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const [row] = await tx.$queryRaw<
        { id: CallId; state: FirstCall['state']; answer: Uint8Array | null }[]
      >`SELECT c.id::text AS id, c.state, CASE WHEN k.answer_until > clock_timestamp() THEN k.answer END AS answer
        FROM idempotency_keys k JOIN calls c ON c.merchant_id = k.merchant_id AND c.id = k.call_id
        WHERE k.merchant_id = ${merchantId} AND k.key_hash = ${keyHash}`;
      return row && { callId: row.id, state: row.state, sealed: row.answer ?? undefined };
    });
  }

  /** Removes answers past their end. @returns how many. */
  async sweep(limit: number): Promise<number> {
    const rows = await this.#database.query<{ removed: number }>(
      Prisma.sql`SELECT answers_sweep(${limit}::integer) AS removed`,
    );
    return rows[0]?.removed ?? 0;
  }
}
