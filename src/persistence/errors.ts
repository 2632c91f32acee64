import { ServiceError } from '../domain/errors.ts';
import { Prisma } from '../generated/prisma/client.ts';
import { sqlStateOf } from '../observability/sql-state.ts';

/**
 * SQLSTATE classes in which Postgres says no to the statement itself: data, integrity, syntax and access, RAISE of our own functions.
 * Every other class (connection, resources, operator intervention, read-only) means "not now".
 */
const STATEMENT_CLASSES = /^(22|23|42|44|P0)/;
/** The same in Prisma's own codes, where it passes no SQLSTATE on. Stores handle them by name. */
const STATEMENT_CODES: ReadonlySet<string> = new Set(['P2002', 'P2003', 'P2004', 'P2025']);
/** What functions and triggers of prisma/migrations raise with a SQLSTATE of ours. */
const RAISED: Readonly<Record<string, ConstructorParameters<typeof ServiceError>>> = {
  P0401: [
    'auth.invalid_token',
    'The key of this request was revoked or has expired meanwhile; what it had not done by then is not done. Use another key.',
  ],
  P0403: [
    'merchant.not_active',
    'This merchant was suspended or closed meanwhile; what the request had not done by then is not done. An operator can say why.',
  ],
  P0410: [
    'merchant.closed',
    'This merchant is closed for good: nothing can be added to it, and it cannot be opened again. Onboard a new one under another id.',
  ],
};

/**
 * Turns what Prisma throws into `ServiceError('ledger.unavailable')` unless it is about the statement itself.
 * Prisma's messages can hold the values of a query, so they stay in the private cause.
 */
export async function translateDatabaseErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const raised = raisedIn(error);
    if (raised !== undefined) throw new ServiceError(...raised);
    if (error instanceof ServiceError || isAboutTheStatement(error) || isOurMistake(error)) throw error;
    throw new ServiceError(
      'ledger.unavailable',
      // It may have done what it was asked before its answer was lost. Who knows better says so (domain/errors.ts, nothingDone).
      'The database does not answer. What only reads can be sent again shortly; of a change it is not known whether it was made: look (GET …) before you send it again.',
      { cause: error, retryAfterSeconds: 5 },
    );
  }
}

function raisedIn(error: unknown): (typeof RAISED)[string] | undefined {
  return error instanceof Prisma.PrismaClientKnownRequestError
    ? RAISED[originalCode(error) ?? '']
    : undefined;
}

function isAboutTheStatement(error: unknown): boolean {
  if (!(error instanceof Prisma.PrismaClientKnownRequestError)) return false;
  const code = originalCode(error);
  return code === undefined ? STATEMENT_CODES.has(error.code) : STATEMENT_CLASSES.test(code);
}

function isOurMistake(error: unknown): boolean {
  const kinds = [Prisma.PrismaClientValidationError, TypeError, RangeError, SyntaxError];
  return kinds.some((kind) => error instanceof kind);
}

/** True for a unique-key collision, e.g. a merchant that exists already. */
export function isUniqueViolation(error: unknown): boolean {
  return (
    error instanceof Prisma.PrismaClientKnownRequestError &&
    (error.code === 'P2002' || originalCode(error) === '23505')
  );
}

/** Postgres's SQLSTATE. Prisma hands it on in one of three places. */
function originalCode(error: Prisma.PrismaClientKnownRequestError): string | undefined {
  return sqlStateOf(error) ?? /Code: `([0-9A-Z]{5})`/.exec(error.message)?.[1];
}
