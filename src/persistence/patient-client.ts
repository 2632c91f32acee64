import { AsyncLocalStorage } from 'node:async_hooks';
import pg from 'pg';

/**
 * How long a statement may take, where that is more than the usual; milliseconds. Postgres itself ends what takes longer (`statement_timeout`),
 * but a Postgres that cannot be heard any more ends nothing.
 */
const patience = new AsyncLocalStorage<number>();

/** Runs `work`, whose statements may take this long. */
export function withPatience<T>(statementTimeoutMs: number, work: () => Promise<T>): Promise<T> {
  return patience.run(statementTimeoutMs, work);
}

/** For the answer to come back after Postgres has ended a statement. At most as long as the statement itself. */
const MARGIN_MS = 1_000;

/**
 * A client of Postgres that hangs up when a statement stays without an answer. Everything that waits on the connection fails then, and the pool
 * drops it. pg's own `query_timeout` would put it back into the pool, where the next statement waits behind the lost one.
 */
export function patientClient(statementTimeoutMs: number): new () => pg.ClientBase {
  return class extends pg.Client {
    override query(...args: never[]): never {
      const limitMs = patience.getStore() ?? statementTimeoutMs;
      const timer = setTimeout(
        () => {
          hangUp(this);
        },
        limitMs + Math.min(MARGIN_MS, limitMs),
      ).unref();
      const given = args.map((arg) => (typeof arg === 'function' ? stopping(timer, arg) : arg));
      const answer = (super.query as (...given: unknown[]) => unknown)(...given);
      if (answer instanceof Promise) void answer.finally(stopping(timer)).catch(() => undefined);
      return answer as never;
    }
  };
}

/** Pools pass a callback, transactions wait for the promise. */
function stopping(timer: NodeJS.Timeout, callback?: (...results: unknown[]) => void) {
  return (...results: unknown[]): void => {
    clearTimeout(timer);
    callback?.(...results);
  };
}

/** pg types neither the connection nor its stream; `end` would wait for an answer. */
function hangUp(client: pg.Client): void {
  const { connection } = client as unknown as { connection: { stream: { destroy: () => void } } };
  connection.stream.destroy();
}
