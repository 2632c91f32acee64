import { ServiceError } from '../domain/errors.ts';
import { Prisma } from '../generated/prisma/client.ts';

/** Prisma codes that say "the database said no to this statement", not "the database is not there". Stores handle them by name. */
const STATEMENT_CODES: ReadonlySet<string> = new Set(['P2002', 'P2003', 'P2004', 'P2010', 'P2025', 'P2039']);

/**
 * Turns what Prisma throws into `ServiceError('ledger.unavailable')` unless it is about the statement itself.
 * Prisma's messages can hold the values of a query, so they stay in the private cause.
 */
export async function translateDatabaseErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ServiceError) throw error;
    if (
      error instanceof Prisma.PrismaClientKnownRequestError &&
      STATEMENT_CODES.has(error.code) &&
      !isConnectionLoss(error)
    )
      throw error;
    if (error instanceof Prisma.PrismaClientValidationError) throw error;
    if (error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError)
      throw error;
    throw new ServiceError(
      'ledger.unavailable',
      'The database does not answer. Nothing was done; try again shortly.',
      {
        cause: error,
        retryAfterSeconds: 5,
      },
    );
  }
}

/** True for a unique-key collision, e.g. a merchant that exists already. */
export function isUniqueViolation(error: unknown): boolean {
  return (
    error instanceof Prisma.PrismaClientKnownRequestError &&
    (error.code === 'P2002' || originalCode(error) === '23505')
  );
}

/** SQLSTATE classes 08 (connection), 53 (resources), 57 (operator intervention, statement timeout) and 25006 (read-only) mean "not now". */
function isConnectionLoss(error: Prisma.PrismaClientKnownRequestError): boolean {
  const code = originalCode(error);
  return code === undefined
    ? error.code === 'P2010' && !/code: `?[0-9A-Z]{5}/i.test(error.message)
    : /^(08|53|57|25006|55P03)/.test(code);
}

function originalCode(error: Prisma.PrismaClientKnownRequestError): string | undefined {
  const adapterError = error.meta?.['driverAdapterError'] as
    { cause?: { originalCode?: unknown } } | undefined;
  const code = adapterError?.cause?.originalCode ?? error.meta?.['code'];
  return typeof code === 'string' ? code : undefined;
}
