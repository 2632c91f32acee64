import { PrismaPg } from '@prisma/adapter-pg';
import type { MerchantId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import { PrismaClient } from '../generated/prisma/client.ts';
import type { Prisma } from '../generated/prisma/client.ts';
import { translateDatabaseErrors } from './errors.ts';
import { patientClient, withPatience } from './patient-client.ts';

/** What a store gets inside a tenant's transaction: queries, no way out of the tenant. */
export type Tx = Prisma.TransactionClient;

export interface DatabaseOptions {
  /** `postgres://` URL of a login that has the role `merchant_bedrock_app` and nothing more. */
  url: Secret;
  /** Connections of this process. */
  connectionsMax: number;
  /** A connection on which a statement stays without an answer for a second longer is given up. */
  statementTimeoutMs: number;
  onPoolError: (error: Error) => void;
}

/**
 * The one Prisma client. Tenant rows are reachable only through `asTenant`, which sets the merchant for one transaction;
 * outside of it row security shows nothing.
 */
export class Database implements AsyncDisposable {
  readonly #prisma: PrismaClient;

  constructor(options: DatabaseOptions) {
    const adapter = new PrismaPg(
      {
        connectionString: options.url.reveal(),
        max: options.connectionsMax,
        connectionTimeoutMillis: 3_000,
        statement_timeout: options.statementTimeoutMs,
        lock_timeout: options.statementTimeoutMs,
        idle_in_transaction_session_timeout: 5_000,
        application_name: 'merchant-bedrock',
        keepAlive: true,
        Client: patientClient(options.statementTimeoutMs),
      },
      { onPoolError: options.onPoolError, onConnectionError: options.onPoolError },
    );
    this.#prisma = new PrismaClient({ adapter, errorFormat: 'minimal' });
  }

  /**
   * Runs `work` in one transaction that sees and writes this merchant's rows only. Keep it short: it holds a connection.
   * @param options.timeoutMs for the few statements that may take longer than those of a request.
   * @param options.snapshot all statements see one moment; for reads that must fit together.
   * @throws ServiceError ledger.unavailable when Postgres cannot be reached or is too slow.
   */
  asTenant<T>(
    merchantId: MerchantId,
    work: (tx: Tx) => Promise<T>,
    { timeoutMs, snapshot = false }: { timeoutMs?: number; snapshot?: boolean } = {},
  ): Promise<T> {
    const run = () =>
      this.#prisma.$transaction(
        async (tx) => {
          await tx.$executeRaw`SELECT set_config('app.merchant_id', ${merchantId}, true)`;
          if (timeoutMs !== undefined)
            await tx.$executeRaw`SELECT set_config('statement_timeout', ${String(timeoutMs)}, true)`;
          return work(tx);
        },
        {
          maxWait: 3_000,
          timeout: timeoutMs ?? 10_000,
          ...(snapshot && { isolationLevel: 'RepeatableRead' as const }),
        },
      );
    return translateDatabaseErrors(() => (timeoutMs === undefined ? run() : withPatience(timeoutMs, run)));
  }

  /**
   * Runs one statement that needs no tenant: a call of one of the functions of prisma/migrations, which set their own.
   * @throws ServiceError ledger.unavailable as above.
   */
  query<Row>(sql: Prisma.Sql): Promise<Row[]> {
    return translateDatabaseErrors(() => this.#prisma.$queryRaw<Row[]>(sql));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#prisma.$disconnect();
  }
}
