import type { Actor } from '../domain/audit.ts';
import type { MerchantId } from '../domain/ids.ts';
import type { InvocationLogs } from '../domain/invocation-logs.ts';
import type { NamedLimits, Plan, PlanSpec } from '../domain/limits.ts';
import { Prisma } from '../generated/prisma/client.ts';
import type { Database } from '../persistence/database.ts';

/** What is used of one limit. Money in nano-USD. */
export interface LimitState {
  name: string;
  scope: string;
  /** The API key or end user; null for the merchant's own. */
  scopeId: string | null;
  mode: string;
  max: number;
  /** With what running calls hold. */
  used: number;
  /** Without it. */
  spent: number;
  resetsAt: string | null;
}

/** Limits of one API key or end user; `scopeId` empty: of each one that has no limits of its own. */
export interface NamedLimit {
  scope: 'api-key' | 'end-user';
  scopeId: string;
  spec: NamedLimits;
}

export interface MerchantLimits {
  plan: string;
  /** The plan with the override that is in force. */
  spec: PlanSpec;
  override: { spec: PlanSpec; endsAt: string | null } | null;
  named: NamedLimit[];
  limits: LimitState[];
  /** How often each limit refused a call today, or would have (shadow). */
  hitsToday: { limit: string; scope: string; mode: string; hits: number }[];
}

/** What an operator changes of a merchant. */
export interface MerchantChange {
  planId?: string | undefined;
  planVersion?: number | undefined;
  status?: 'active' | 'suspended' | undefined;
  override?: { spec: PlanSpec; endsAt: string | null } | null | undefined;
  invocationLogs?: InvocationLogs | null | undefined;
}

interface UseRow {
  name: string;
  scope: string;
  scope_id: string;
  mode: string;
  maximum: bigint;
  used: bigint;
  spent: bigint;
  resets_at: Date | null;
}

/** Plans and limits. Written by functions of the database, each with its audit record. */
export class LimitStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Latest version of every plan first. */
  async plans(): Promise<Plan[]> {
    const rows = await this.#database.query<{
      id: string;
      version: number;
      spec: PlanSpec;
      created_by: string;
      created_at: Date;
    }>(Prisma.sql`SELECT id, version, spec, created_by, created_at FROM plans ORDER BY id, version DESC`);
    return rows.map(({ created_by: createdBy, created_at: at, ...plan }) => ({
      ...plan,
      createdBy,
      createdAt: at.toISOString(),
    }));
  }

  /** @returns the number of the new version. */
  async createPlan(actor: Actor, id: string, spec: PlanSpec): Promise<number> {
    const rows = await this.#database.query<{ version: number }>(
      Prisma.sql`SELECT plan_create(${id}, ${JSON.stringify(spec)}::jsonb, ${actor.subject}, ${actor.requestId}) AS version`,
    );
    return rows[0]?.version ?? 0;
  }

  /** @returns what does not exist, or `done`. */
  async changeMerchant(
    actor: Actor,
    merchantId: MerchantId,
    change: MerchantChange,
  ): Promise<'done' | 'merchant' | 'plan' | 'credential'> {
    const rows = await this.#database.query<{ outcome: 'done' | 'merchant' | 'plan' | 'credential' }>(
      Prisma.sql`SELECT merchant_change(${merchantId}, ${JSON.stringify(change)}::jsonb, ${actor.subject}, ${actor.requestId}) AS outcome`,
    );
    return rows[0]?.outcome ?? 'merchant';
  }

  /** Replaces all limits that the merchant set for its own API keys and end users. */
  async replaceNamed(actor: Actor, merchantId: MerchantId, named: readonly NamedLimit[]): Promise<void> {
    await this.#database.query(
      Prisma.sql`SELECT named_limits_replace(${merchantId}, ${JSON.stringify(named)}::jsonb, ${actor.subject}, ${actor.requestId})::text`,
    );
  }

  /** The limits of a merchant and what is used of them now. */
  inForce(merchantId: MerchantId): Promise<MerchantLimits> {
    return this.#database.asTenant(merchantId, async (tx) => {
      const [row] = await tx.$queryRaw<{ plan: string; spec: PlanSpec }[]>`
        SELECT m.plan_id || '@' || m.plan_version AS plan, f.spec
        FROM merchants m, merchants_in_force(ARRAY[m.id], now()) AS f WHERE m.id = ${merchantId}`;
      const set = await tx.limit.findMany({
        where: { merchantId },
        orderBy: [{ scope: 'asc' }, { scopeId: 'asc' }],
      });
      const uses = await tx.$queryRaw<UseRow[]>`SELECT * FROM limits_in_force()`;
      const hitsToday = await tx.$queryRaw<MerchantLimits['hitsToday']>`
        SELECT limit_name AS limit, scope, mode, hits::int AS hits FROM limit_hits
        WHERE merchant_id = ${merchantId} AND day = (now() AT TIME ZONE 'UTC')::date ORDER BY 1, 2, 3`;
      const override = set.find(({ scope }) => scope === 'merchant');
      return {
        plan: row?.plan ?? '',
        spec: row?.spec ?? {},
        override: override
          ? { spec: override.spec as PlanSpec, endsAt: override.endsAt?.toISOString() ?? null }
          : null,
        named: set
          .filter(({ scope }) => scope !== 'merchant')
          .map(({ scope, scopeId, spec }) => ({ scope, scopeId, spec }) as NamedLimit),
        limits: uses.map(toState),
        hitsToday,
      };
    });
  }
}

function toState(row: UseRow): LimitState {
  return {
    name: row.name,
    scope: row.scope,
    scopeId: row.scope_id === '' ? null : row.scope_id,
    mode: row.mode,
    max: Number(row.maximum),
    used: Number(row.used),
    spent: Number(row.spent),
    resetsAt: row.resets_at?.toISOString() ?? null,
  };
}
