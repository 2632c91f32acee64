import { userInfo } from 'node:os';
import { ServiceError } from '../../src/domain/errors.ts';
import type { Secret } from '../../src/domain/secret.ts';
import { Database } from '../../src/persistence/database.ts';
import { Failure, nameOf, shown, UsageError } from './run.ts';

/**
 * One connection with an administrator's login.
 * @param ifFailed the first words of what is said when the database refuses or is away. @throws Failure
 */
export async function withAdminDatabase<T>(
  adminUrl: Secret,
  { ifFailed, statementTimeoutMs }: { ifFailed: string; statementTimeoutMs: number },
  work: (database: Database) => Promise<T>,
): Promise<T> {
  await using database = new Database({
    url: adminUrl,
    connectionsMax: 1,
    statementTimeoutMs,
    onPoolError: () => undefined,
  });
  try {
    return await work(database);
  } catch (error) {
    if (error instanceof Failure || error instanceof UsageError) throw error;
    throw new Failure(`${ifFailed} ${whyFailed(error)}`);
  }
}

/** For the audit trail: who ran this. */
export function administrator(): { subject: string; requestId: string } {
  return { subject: `cli:${userName()}`, requestId: 'cli' };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return 'unknown';
  }
}

function whyFailed(error: unknown): string {
  if (error instanceof ServiceError) return 'The database of DATABASE_ADMIN_URL cannot be reached.';
  const { code, message } = refusal(error);
  // undefined_table, undefined_function
  if (code === '42P01' || code === '42883')
    return 'The database of DATABASE_ADMIN_URL is not migrated: npm run migrate does it.';
  // Only what the server said: the rest of an error from below may hold what was sent.
  return `The database of DATABASE_ADMIN_URL refused (${code ?? nameOf(error)})${message === undefined ? '.' : `: ${shown(message)}`}`;
}

/** What Postgres said, as Prisma's adapter hands it on. */
function refusal(error: unknown): { code?: string; message?: string } {
  const { meta } = (error ?? {}) as {
    meta?: { driverAdapterError?: { cause?: { originalCode?: unknown; originalMessage?: unknown } } };
  };
  const { originalCode: code, originalMessage: message } = meta?.driverAdapterError?.cause ?? {};
  return {
    ...(typeof code === 'string' && { code }),
    ...(typeof message === 'string' && { message }),
  };
}
