/** The time, injected so that tests can move it. Ledger periods use the database's clock, never this one. */
export interface Clock {
  /** Milliseconds since the epoch; of `monotonicClock`, since some beginning. */
  now(): number;
}

/** Counts on whatever is done to the system's clock, from an arbitrary beginning: for spans, never for dates. */
export const monotonicClock: Clock = { now: () => performance.now() };
export const systemClock: Clock = { now: () => Date.now() };
