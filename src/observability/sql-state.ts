/** Postgres's SQLSTATE, where Prisma hands it on beside its own code, in one of two places. Five characters; it says nothing of values. */
export function sqlStateOf(error: Error): string | undefined {
  const { meta } = error as { meta?: { code?: unknown; driverAdapterError?: unknown } };
  const { cause } = (meta?.driverAdapterError ?? {}) as { cause?: { originalCode?: unknown } };
  const state = cause?.originalCode ?? meta?.code;
  return typeof state === 'string' && /^[0-9A-Z]{5}$/.test(state) ? state : undefined;
}
