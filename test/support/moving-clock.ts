import type { Clock } from '../../src/domain/clock.ts';

export interface MovingClock extends Clock {
  /** Now everything of a merchant that has to rest after its last time has rested, and a little more. */
  rest: () => void;
}

/** The service's clock of spans (`monotonic`), for tests that do not want to wait. */
export function movingClock(): MovingClock {
  let aheadMs = 0;
  return {
    now: () => performance.now() + aheadMs,
    rest: () => {
      aheadMs += 2_500;
    },
  };
}
