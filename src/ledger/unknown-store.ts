import type { Actor } from '../domain/audit.ts';
import type { InvocationLogs } from '../domain/invocation-logs.ts';
import type { CallId, MerchantId } from '../domain/ids.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import type { Decision, UnknownCall, UnknownCalls } from './unknown.ts';
import type { Page } from './usage.ts';

interface ClaimRow {
  merchant_id: MerchantId;
  id: CallId;
  region: string;
  account_id: string | null;
  aws_request_id: string | null;
  created_at: Date;
  deadline: Date;
  hold_tokens: bigint;
  max_tokens: bigint | null;
  hold_images: number | null;
  seen_input_tokens: bigint | null;
  seen_output_tokens: bigint | null;
  seen_told: boolean | null;
  invocation_logs: InvocationLogs | null;
  when_unknown: UnknownCall['whenUnknown'];
  overdue: boolean;
}

interface OpsRow {
  merchant_id: MerchantId;
  calls: bigint;
  oldest: Date;
  hold_tokens: bigint;
  hold_nano: bigint;
}

/** Calls that are unknown. Each method is one function of the database (prisma/migrations). */
export class UnknownStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Claims unknown calls that are due; nobody else is given them for at least two minutes. Cost: one statement, by index. */
  async claim(limit: number): Promise<UnknownCall[]> {
    const rows = await this.#database.query<ClaimRow>(
      Prisma.sql`SELECT * FROM reconcile_claim(${limit}::integer)`,
    );
    return rows.map(toUnknownCall);
  }

  /**
   * Writes what an operator decided, with its audit record.
   * @returns what it was instead of unknown: `missing`, or its state.
   */
  async decide(actor: Actor, merchantId: MerchantId, id: CallId, decision: Decision): Promise<string> {
    const rows = await this.#database.query<{ outcome: string }>(
      Prisma.sql`SELECT call_resolve(${merchantId}, ${id}::uuid, ${JSON.stringify(toOutcome(decision))}::jsonb, ${decision.reason},
        ${actor.subject}, ${actor.requestId}) AS outcome`,
    );
    return rows[0]?.outcome ?? 'missing';
  }

  /** Unknown calls of all merchants, for operators, by merchant id. */
  async byMerchant(limit: number, after = ''): Promise<Page<UnknownCalls>> {
    const rows = await this.#database.query<OpsRow>(
      Prisma.sql`SELECT * FROM ops_unknown(${after}, ${limit + 1}::integer)`,
    );
    const items = rows.slice(0, limit).map((row) => ({
      merchantId: row.merchant_id,
      calls: Number(row.calls),
      oldest: row.oldest.toISOString(),
      holdTokens: Number(row.hold_tokens),
      holdNanoUsd: Number(row.hold_nano),
    }));
    const last = items.at(-1);
    return rows.length > limit && last !== undefined ? { items, nextCursor: last.merchantId } : { items };
  }
}

function toUnknownCall(row: ClaimRow): UnknownCall {
  const outputTokens = Number(row.max_tokens ?? 0);
  const { seen_input_tokens: seenInput, seen_output_tokens: seenOutput } = row;
  return {
    merchantId: row.merchant_id,
    id: row.id,
    region: row.region,
    accountId: row.account_id ?? undefined,
    awsRequestId: row.aws_request_id ?? undefined,
    createdAtMs: row.created_at.getTime(),
    deadlineMs: row.deadline.getTime(),
    hold: { inputTokens: Number(row.hold_tokens) - outputTokens, outputTokens, images: row.hold_images ?? 0 },
    seen:
      seenOutput === null
        ? undefined
        : {
            outputTokens: Number(seenOutput),
            told: row.seen_told === true,
            ...(seenInput !== null && { inputTokens: Number(seenInput) }),
          },
    logs: row.invocation_logs ?? undefined,
    whenUnknown: row.when_unknown,
    overdue: row.overdue,
  };
}

/** The members of the composite type call_outcome. */
function toOutcome(decision: Decision): Record<string, string | number> {
  if (decision.state === 'void') return { state: 'void' };
  const { tokens, images } = decision;
  return {
    state: 'settled',
    provenance: 'operator',
    input_tokens: tokens.input,
    output_tokens: tokens.output,
    cache_read_tokens: tokens.cacheRead,
    cache_write_5m_tokens: tokens.cacheWrite5m,
    cache_write_1h_tokens: tokens.cacheWrite1h,
    images,
  };
}
