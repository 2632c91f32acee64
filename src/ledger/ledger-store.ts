import type { CallId, MerchantId } from '../domain/ids.ts';
import type { CallOutcome } from '../domain/usage.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';
import { Batcher } from './batcher.ts';
import type { CallIntent, HoldAnswer, LimitUse, StaticVerdict } from './call-intent.ts';

/** At most this many calls share a commit: beyond it a batch takes longer than what it saves. */
const BATCH_SIZE_MAX = 256;

interface Hold {
  merchantId: MerchantId;
  intent: CallIntent;
}
interface Settlement {
  merchantId: MerchantId;
  id: CallId;
  outcome: CallOutcome;
}
/** What ledger_hold answers for one merchant of a batch. */
interface HeldPart {
  merchant: string;
  /** Set when the merchant may make no call at all. */
  verdict?: StaticVerdict;
  answers?: HoldAnswer[];
  limits?: LimitUse[] | null;
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
  constructor(database: Database, options: { processId: string; lanes: number }) {
    this.#database = database;
    this.#processId = options.processId;
    const size = { lanes: options.lanes, sizeMax: BATCH_SIZE_MAX };
    this.#holds = new Batcher({ ...size, run: (items) => this.#hold(items) });
    this.#settlements = new Batcher({ ...size, run: (items) => this.#settle(items) });
  }

  /** Admits and records a call, or says why not. @throws ServiceError ledger.unavailable: then nothing was admitted. */
  hold(merchantId: MerchantId, intent: CallIntent): Promise<HoldAnswer> {
    return this.#holds.add(merchantId, { merchantId, intent });
  }

  /** Resolves a call; false when another resolution came first. @throws ServiceError ledger.unavailable: then it may have been or not. */
  settle(merchantId: MerchantId, id: CallId, outcome: CallOutcome): Promise<boolean> {
    return this.#settlements.add(merchantId, { merchantId, id, outcome });
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

  /** Makes the partitions of the next months; safe to repeat. */
  async makePartitions(months: number): Promise<void> {
    await this.#database.query(Prisma.sql`SELECT ledger_make_partitions(${months}::integer)::text`);
  }

  async #hold(items: readonly Hold[]): Promise<HoldAnswer[]> {
    const batch = byMerchant(items, (item, pos) => toIntentRow(item.intent, pos));
    const parts = batch.map(({ merchant, rows }) => ({ merchant, calls: rows }));
    const rows = await this.#database.query<{ held: HeldPart[] }>(
      Prisma.sql`SELECT ledger_hold(${this.#processId}::uuid, ${JSON.stringify(parts)}::jsonb) AS held`,
    );
    const held = new Map(rows[0]?.held.map((part) => [part.merchant, part]));
    return inOrder(items, batch, (merchant, at) => answerOf(held.get(merchant), at));
  }

  async #settle(items: readonly Settlement[]): Promise<boolean[]> {
    const parts = byMerchant(items, (item, pos) => toOutcomeRow(item, pos)).map(({ merchant, rows }) => ({
      merchant,
      outcomes: rows,
    }));
    const rows = await this.#database.query<{ moved: string[] }>(
      Prisma.sql`SELECT ledger_settle(${JSON.stringify(parts)}::jsonb) AS moved`,
    );
    const moved = new Set(rows[0]?.moved);
    // Of two settlements of one call in one batch the first won.
    return items.map(({ id }) => moved.delete(id));
  }
}

function answerOf(part: HeldPart | undefined, at: number): HoldAnswer {
  if (part?.verdict !== undefined) return { verdict: part.verdict };
  const answer = part?.answers?.[at];
  if (answer === undefined) throw new Error('the database answered for fewer calls than it was asked for');
  return answer.verdict === 'admitted' ? { ...answer, limits: part?.limits ?? [] } : answer;
}

interface MerchantPart {
  merchant: MerchantId;
  rows: Record<string, unknown>[];
}

/** Items of each merchant together, in their order; `pos` counts from 1 within a merchant. */
function byMerchant<Item extends { merchantId: MerchantId }>(
  items: readonly Item[],
  toRow: (item: Item, pos: number) => Record<string, unknown>,
): MerchantPart[] {
  const parts = new Map<MerchantId, MerchantPart>();
  for (const item of items) {
    const part = parts.get(item.merchantId) ?? { merchant: item.merchantId, rows: [] };
    part.rows.push(toRow(item, part.rows.length + 1));
    parts.set(item.merchantId, part);
  }
  return [...parts.values()];
}

/** Gives each item the answer at its place within its merchant. */
function inOrder<Out>(
  items: readonly { merchantId: MerchantId }[],
  parts: readonly MerchantPart[],
  answer: (merchant: MerchantId, at: number) => Out,
): Out[] {
  const next = new Map(parts.map(({ merchant }) => [merchant, 0]));
  return items.map(({ merchantId }) => {
    const at = next.get(merchantId) ?? 0;
    next.set(merchantId, at + 1);
    return answer(merchantId, at);
  });
}

/** The members of the composite type call_intent. Members that are undefined stay out of the JSON and are NULL. */
function toIntentRow(intent: CallIntent, pos: number): Record<string, unknown> {
  const { bound, idempotency } = intent;
  return {
    pos,
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
    tier: bound.tier,
    price_id: bound.price?.id.toString(),
    input_nano: bound.price?.inputNanoUsd.toString(),
    output_nano_per_million: bound.price?.outputNanoUsdPerMillion.toString(),
    key_hash: idempotency?.keyHash,
    body_hash: idempotency?.bodyHash,
  };
}

/** The members of the composite type call_outcome. */
function toOutcomeRow({ id, outcome }: Settlement, pos: number): Record<string, unknown> {
  const { status, errorType, awsRequestId, latencyMs, timeToFirstByteMs } = outcome.upstream;
  return {
    pos,
    id,
    state: outcome.state,
    aws_status: status,
    aws_error_type: errorType,
    aws_request_id: awsRequestId,
    latency_ms: latencyMs === undefined ? undefined : Math.round(latencyMs),
    time_to_first_byte_ms: timeToFirstByteMs === undefined ? undefined : Math.round(timeToFirstByteMs),
    ...(outcome.state === 'settled' ? toUsageRow(outcome) : { reason: outcome.reason }),
  };
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
