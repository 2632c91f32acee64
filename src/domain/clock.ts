/** The time, injected so that tests can move it. Ledger periods use the database's clock, never this one. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };
