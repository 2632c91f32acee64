import type { Clock } from '../../src/domain/clock.ts';

export interface MovingClock extends Clock {
  /** Now everything of a merchant that has to rest after its last time has rested, and a little more. */
  rest: () => void;
  /** Milliseconds. */
  forward: (ms: number) => void;
  /** Stands until the end of the block, however slow the machine is. */
  stand: () => Disposable;
}

/** The service's clock of spans (`monotonic`), for tests that do not want to wait. */
export function movingClock(): MovingClock {
  let aheadMs = 0;
  let standsAt: number | undefined;
  const forward = (ms: number) => {
    aheadMs += ms;
  };
  return {
    now: () => (standsAt ?? performance.now()) + aheadMs,
    rest: () => {
      forward(2_500);
    },
    forward,
    stand: () => {
      standsAt = performance.now();
      return {
        [Symbol.dispose]: () => {
          standsAt = undefined;
        },
      };
    },
  };
}
