import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import pg from 'pg';
import type { ApiKeyId, CallId, MerchantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { CallOutcome } from '../../src/domain/usage.ts';
import type { CallIntent } from '../../src/ledger/call-intent.ts';
import { LedgerStore } from '../../src/ledger/ledger-store.ts';
import { UsageStore } from '../../src/ledger/usage-store.ts';
import { UsageVerifyStore } from '../../src/ledger/usage-verify-store.ts';
import { Database } from '../../src/persistence/database.ts';
import { newTestDatabase } from '../support/database.ts';

const CREDENTIAL = `cred_${'0'.repeat(22)}`;
export const INSTANCE = 'arn:aws:bedrock:us-east-1:100000000001:provisioned-model/abcdefghijkl';
const REGIONS = ['us-east-1', 'eu-central-1'] as const;

export interface Merchant {
  id: MerchantId;
  keyId: ApiKeyId;
}

/** A call as it is made up: what is asked, and how it ends (undefined: it does not). */
export interface Made {
  intent: Partial<CallIntent>;
  outcome: CallOutcome | undefined;
}

/** The ledger's stores on a database of their own, with a priced model. */
export class UsageHouse {
  readonly admin: pg.Client;
  readonly connection: Database;
  readonly ledger: LedgerStore;
  readonly usage: UsageStore;
  readonly verify: UsageVerifyStore;
  readonly url: string;
  priceId = 0n;
  #merchants = 0;

  constructor(parts: { admin: pg.Client; connection: Database; url: string }) {
    this.admin = parts.admin;
    this.connection = parts.connection;
    this.url = parts.url;
    this.ledger = new LedgerStore(this.connection, { processId: randomUUID() });
    this.usage = new UsageStore(this.connection);
    this.verify = new UsageVerifyStore(this.connection);
  }

  /** A merchant with a live API key and a live credential; everything allowed. */
  async newMerchant(): Promise<Merchant> {
    this.#merchants += 1;
    const number = String(this.#merchants).padStart(4, '0');
    const id = `merchant-${number}` as MerchantId;
    const keyId = `K0000000${number}` as ApiKeyId;
    await this.admin.query(`
      INSERT INTO merchants (id, name, direct_allowed, service_defaults_allowed) VALUES ('${id}', 'x', true, true);
      INSERT INTO api_keys (merchant_id, id, name, environment, secret_hash, pepper_version, scopes, created_by, expires_at)
        VALUES ('${id}', '${keyId}', 'x', 'test', decode(repeat('00', 32), 'hex'), 1, '{}', 'x', now() + interval '1 day');
      INSERT INTO credentials (merchant_id, id, name, kind, region, key_hint, current_version, created_by) VALUES ('${id}', '${CREDENTIAL}', 'x', 'access-key', 'us-east-1', 'x', 1, 'x');
      INSERT INTO credential_versions (merchant_id, credential_id, version, state, wrapped_key, kms_key_arn, secret_name, secret_version_id)
        VALUES ('${id}', '${CREDENTIAL}', 1, 'current', 'x', 'x', 'x', 'x');
      SELECT audit_append('${id}', 'x', 'merchant.created', 'x', 'allowed', 'x', '{}');`);
    return { id, keyId };
  }

  /** Makes calls, all at once. */
  async make(merchant: Merchant, calls: readonly Made[]): Promise<CallId[]> {
    return Promise.all(
      calls.map(async ({ intent, outcome }) => {
        const answer = await this.ledger.hold(merchant.id, { ...BASIC, ...intent });
        if (answer.verdict !== 'admitted') throw new Error(`not admitted: ${answer.verdict}`);
        if (outcome !== undefined) await this.ledger.settle(merchant.id, answer.id, outcome);
        return answer.id;
      }),
    );
  }

  /** Calls of every kind that a report tells apart. */
  calls({ keyId }: Merchant): fc.Arbitrary<Made> {
    const price = { id: this.priceId, inputNanoUsd: 5n, outputNanoUsdPerMillion: 7_000n };
    const intent = fc
      .record({
        modelId: fc.constantFrom('m1', 'm2', INSTANCE),
        source: fc.constantFrom('direct', 'stored', 'service-default'),
        region: fc.constantFrom(...REGIONS),
        withKey: fc.boolean(),
        endUser: fc.constantFrom(undefined, 'ann', 'ben', '+cmd'),
        priced: fc.boolean(),
        stream: fc.boolean(),
      })
      .map(({ withKey, priced, stream, endUser, ...rest }) => ({
        ...rest,
        operation: stream ? 'converse-stream' : 'converse',
        ...(rest.source === 'stored' && { credentialId: CREDENTIAL, credentialVersion: 1 }),
        ...(withKey && { apiKeyId: keyId }),
        ...(endUser !== undefined && { endUser }),
        bound: { ...BASIC.bound, ...(priced && { price }) },
      }));
    const upstream = fc.record(
      {
        status: fc.constantFrom(200, 400, 429, 503),
        latencyMs: fc.oneof(fc.nat(20), fc.nat(3_000), fc.nat(600_000)),
      },
      { requiredKeys: [] },
    );
    const count = fc.nat(100_000);
    const settled = fc
      .record({
        tokens: fc.record({
          input: count,
          output: count,
          cacheRead: count,
          cacheWrite5m: count,
          cacheWrite1h: count,
        }),
        images: fc.nat(3),
        provenance: fc.constantFrom('body', 'headers', 'estimated'),
        upstream,
      })
      .map(({ upstream: facts, ...usage }) => ({ state: 'settled', usage, upstream: facts }));
    const other = fc.record({
      state: fc.constantFrom('void', 'unknown'),
      reason: fc.constant('x'),
      upstream,
    });
    const outcome = fc.option(fc.oneof(settled, settled, other), { nil: undefined, freq: 10 });
    return fc.record({ intent, outcome }) as fc.Arbitrary<Made>;
  }

  /** As a merchant whose calls began so many days ago: rows, sums and counters together. */
  async shiftDays(merchant: Merchant, ids: readonly CallId[], days: number): Promise<void> {
    await this.admin.query(
      `UPDATE calls SET created_at = created_at - make_interval(days => $3) WHERE merchant_id = $1 AND id = ANY ($2::uuid[])`,
      [merchant.id, ids, days],
    );
    await this.rebuildSums(merchant);
  }

  /** Makes the sums anew from the rows. */
  async rebuildSums({ id }: Merchant): Promise<void> {
    await this.admin.query(`
      SELECT set_config('app.merchant_id', '${id}', false);
      DELETE FROM usage_days WHERE merchant_id = '${id}';
      SELECT settle_usage(ARRAY(SELECT ROW(c, 'held')::call_change FROM calls c WHERE c.merchant_id = '${id}' AND c.state <> 'held'));`);
  }
}

const BASIC = {
  operation: 'converse',
  modelId: 'm1',
  region: 'us-east-1',
  source: 'service-default',
  subject: 'x',
  requestId: 'r',
  deadlineSeconds: 60,
  merchantRevision: 1,
  bound: { inputTokens: 0, outputTokens: 0, outputTokensMost: 0, clampable: false, tier: 'standard' },
} as const;

export async function openUsageHouse(): Promise<{ house: UsageHouse; close: () => Promise<void> }> {
  const database = await newTestDatabase();
  const admin = new pg.Client({ connectionString: database.adminUrl });
  await admin.connect();
  const connection = new Database({
    url: new Secret(database.url),
    connectionsMax: 10,
    statementTimeoutMs: 10_000,
    onPoolError: () => undefined,
  });
  const house = new UsageHouse({ admin, connection, url: database.url });
  const { rows } = await admin.query<{ id: string }>(
    `INSERT INTO prices (model_id, region, profile, tier, valid_from, input, output, cache_read, cache_write_5m, cache_write_1h, image, source, source_date, imported_by)
     VALUES ('m1', '*', 'in-region', 'standard', now(), 60000000, 240000000, 6000000, 75000000, 120000000, 40000000000000, 'x', now(), 'x') RETURNING id`,
  );
  house.priceId = BigInt(rows[0]?.id ?? 0);
  return {
    house,
    close: async () => {
      await connection[Symbol.asyncDispose]();
      await admin.end();
      await database[Symbol.asyncDispose]();
    },
  };
}
