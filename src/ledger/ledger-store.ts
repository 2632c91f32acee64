import type { CallId, MerchantId } from '../domain/ids.ts';
import type { CallOutcome, SeenUsage } from '../domain/usage.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import { Batcher } from './batcher.ts';
import type { CallIntent, HoldAnswer, LimitUse } from './call-intent.ts';
import type { UnsentCall } from './unsent.ts';

/** At most this many calls share a commit: beyond it a batch takes longer than what it saves. */
const BATCH_SIZE_MAX = 256;
/** And of one merchant while others call as well: some 10 ms of Postgres, which is what a flood makes them wait (docs/performance.md). */
const BATCH_PART_MAX = 16;

interface Hold {
  merchantId: MerchantId;
  intent: CallIntent;
}
interface Settlement {
  merchantId: MerchantId;
  id: CallId;
  outcome: CallOutcome;
}
/** What ledger_hold answers for a batch. */
interface Held {
  answers: HoldAnswer[];
  /** By merchant. */
  limits: Record<string, LimitUse[] | undefined>;
}

/**
 * The ledger's two writes. Each is one function of the database (prisma/migrations), in batches: calls that run at one time share a
 * statement and a commit.
 */
export class LedgerStore {
  readonly #database: Database;
  readonly #processId: string;
  readonly #holds: Batcher<Hold, HoldAnswer>;
  readonly #settlements: Batcher<Settlement, boolean>;

  /** @param options.processId names this process: what it holds is in doubt when it stops saying that it lives. */
  constructor(database: Database, options: { processId: string }) {
    this.#database = database;
    this.#processId = options.processId;
    const turns = {
      ownerOf: (item: { merchantId: MerchantId }) => item.merchantId,
      partMax: BATCH_PART_MAX,
    };
    const fair = { sizeMax: BATCH_SIZE_MAX, turns };
    this.#holds = new Batcher<Hold, HoldAnswer>({ ...fair, run: (items) => this.#hold(items) });
    this.#settlements = new Batcher<Settlement, boolean>({ ...fair, run: (items) => this.#settle(items) });
  }

  /** Admits and records a call, or says why not. @throws ServiceError ledger.unavailable: then it may have been, and nothing may be sent. */
  hold(merchantId: MerchantId, intent: CallIntent): Promise<HoldAnswer> {
    return this.#holds.add({ merchantId, intent });
  }

  /** Resolves a call; false when another resolution came first. @throws ServiceError ledger.unavailable: then it may have been or not. */
  settle(merchantId: MerchantId, id: CallId, outcome: CallOutcome): Promise<boolean> {
    return this.#settlements.add({ merchantId, id, outcome });
  }

  /**
   * Makes calls of this process void that were admitted without an answer (unsent.ts). What it does not find will never be: it waits for a
   * commit that is under way. @returns how many. @throws ServiceError ledger.unavailable
   */
  async voidUnsent(calls: readonly UnsentCall[]): Promise<number> {
    const items = calls.map(({ merchantId, requestId }) => ({
      merchant_id: merchantId,
      request_id: requestId,
    }));
    const rows = await this.#database.query<{ moved: number }>(
      Prisma.sql`SELECT ledger_void_unsent(${this.#processId}::uuid, ${JSON.stringify(items)}::jsonb) AS moved`,
    );
    return rows[0]?.moved ?? 0;
  }

  /** Says that this process lives for the next `leaseSeconds`. */
  async keepAlive(leaseSeconds: number): Promise<void> {
    await this.#database.query(
      Prisma.sql`SELECT process_alive(${this.#processId}::uuid, ${leaseSeconds}::double precision)::text`,
    );
  }

  /** Turns calls that lost their process, or passed their deadline, into unknown. @returns how many. */
  async sweep(limit: number): Promise<number> {
    const rows = await this.#database.query<{ moved: number }>(
      Prisma.sql`SELECT ledger_sweep(${limit}::integer) AS moved`,
    );
    return rows[0]?.moved ?? 0;
  }

  /** Removes counters and counts of limit hits that nobody needs any more; safe on any number of replicas. @returns how many. */
  async sweepCounters(limit: number): Promise<number> {
    const rows = await this.#database.query<{ removed: number }>(
      Prisma.sql`SELECT counters_sweep(${limit}::integer) AS removed`,
    );
    return rows[0]?.removed ?? 0;
  }

  /** Makes the partitions of the next months; safe to repeat. */
  async makePartitions(months: number): Promise<void> {
    await this.#database.query(Prisma.sql`SELECT ledger_make_partitions(${months}::integer)::text`);
  }

  async #hold(items: readonly Hold[]): Promise<HoldAnswer[]> {
    const calls = JSON.stringify(items.map(toIntentRow));
    const rows = await this.#database.query<{ held: Held }>(
      Prisma.sql`SELECT ledger_hold(${this.#processId}::uuid, ${calls}::jsonb) AS held`,
    );
    const { answers = [], limits = {} } = rows[0]?.held ?? {};
    if (answers.length !== items.length)
      throw new Error('the database answered for other calls than it was asked for');
    return answers.map((answer, at) =>
      answer.verdict === 'admitted'
        ? { ...answer, limits: limits[items[at]?.merchantId ?? ''] ?? [] }
        : answer,
    );
  }

  async #settle(items: readonly Settlement[]): Promise<boolean[]> {
    const outcomes = JSON.stringify(items.map(toOutcomeRow));
    const rows = await this.#database.query<{ moved: string[] }>(
      Prisma.sql`SELECT ledger_settle(${outcomes}::jsonb) AS moved`,
    );
    const moved = new Set(rows[0]?.moved);
    // Of two settlements of one call in one batch the first won.
    return items.map(({ id }) => moved.delete(id));
  }
}

/** The members of the composite type call_intent. Members that are undefined stay out of the JSON and are NULL. */
function toIntentRow({ merchantId, intent }: Hold, at: number): Record<string, unknown> {
  const { bound, idempotency } = intent;
  return {
    merchant_id: merchantId,
    pos: at + 1,
    merchant_revision: intent.merchantRevision,
    operation: intent.operation,
    model_id: intent.modelId,
    base_model_id: intent.baseModelId,
    region: intent.region,
    account_id: intent.accountId,
    source: intent.source,
    credential_id: intent.credentialId,
    credential_version: intent.credentialVersion,
    subject: intent.subject,
    api_key_id: intent.apiKeyId,
    end_user: intent.endUser,
    request_id: intent.requestId,
    client_invocation_id: intent.clientInvocationId,
    deadline_seconds: intent.deadlineSeconds,
    input_tokens: bound.inputTokens,
    output_tokens: bound.outputTokens,
    output_tokens_most: bound.outputTokensMost,
    clampable: bound.clampable,
    images: bound.images,
    tier: bound.tier,
    price_id: bound.price?.id.toString(),
    input_nano: bound.price?.inputNanoUsd.toString(),
    output_nano_per_million: bound.price?.outputNanoUsdPerMillion.toString(),
    key_hash: idempotency?.keyHash,
    body_hash: idempotency?.bodyHash,
  };
}

/** The members of the composite type call_outcome. */
function toOutcomeRow({ merchantId, id, outcome }: Settlement, at: number): Record<string, unknown> {
  const { status, errorType, awsRequestId, latencyMs, timeToFirstByteMs } = outcome.upstream;
  return {
    merchant_id: merchantId,
    pos: at + 1,
    id,
    state: outcome.state,
    aws_status: status,
    aws_error_type: errorType,
    aws_request_id: awsRequestId,
    latency_ms: latencyMs === undefined ? undefined : Math.round(latencyMs),
    time_to_first_byte_ms: timeToFirstByteMs === undefined ? undefined : Math.round(timeToFirstByteMs),
    ...(outcome.state === 'settled' ? toUsageRow(outcome) : { reason: outcome.reason }),
    ...(outcome.state === 'unknown' && outcome.seen !== undefined && toSeenRow(outcome.seen)),
  };
}

function toSeenRow({ inputTokens, outputTokens, told }: SeenUsage): Record<string, unknown> {
  return { seen_input_tokens: inputTokens, seen_output_tokens: outputTokens, seen_told: told };
}

function toUsageRow({ usage }: CallOutcome & { state: 'settled' }): Record<string, unknown> {
  return {
    provenance: usage.provenance,
    input_tokens: usage.tokens.input,
    output_tokens: usage.tokens.output,
    cache_read_tokens: usage.tokens.cacheRead,
    cache_write_5m_tokens: usage.tokens.cacheWrite5m,
    cache_write_1h_tokens: usage.tokens.cacheWrite1h,
    images: usage.images,
  };
}
