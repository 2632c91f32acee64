import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { ServiceError } from '../../src/domain/errors.ts';
import { FairQueue } from '../../src/gateway/fair-queue.ts';
import type { FairQueueOptions, Place } from '../../src/gateway/fair-queue.ts';
import { until } from '../support/until.ts';

/** Ends those that still wait when a test is over. */
let over = new AbortController();
afterEach(() => {
  over.abort();
  over = new AbortController();
});
const turn = () => new Promise((resolve) => setImmediate(resolve));

function newQueue(options: Partial<FairQueueOptions> = {}) {
  return new FairQueue({
    inFlightMax: 4,
    inFlightPerMerchantMax: 2,
    waitingPerMerchantMax: 3,
    waitMs: 60_000,
    ...options,
  });
}

/** Enters, and remembers what came of it. */
function newCrowd(queue: FairQueue) {
  const order: string[] = [];
  const places: { merchant: string; place: Place }[] = [];
  const refused: { merchant: string; error: ServiceError }[] = [];
  const enter = (merchant: string, signal = over.signal): void => {
    queue.enter(merchant, signal).then(
      (place) => {
        order.push(merchant);
        places.push({ merchant, place });
      },
      (error: unknown) => void refused.push({ merchant, error: error as ServiceError }),
    );
  };
  const leave = (merchant?: string): void => {
    const at = places.findIndex((one) => merchant === undefined || one.merchant === merchant);
    places.splice(at, 1)[0]?.place.leave();
  };
  return { order, places, refused, enter, leave };
}

test('a call that finds a place has it at once', async () => {
  const queue = newQueue();
  const place = await queue.enter('a', over.signal);
  expect([queue.inFlight, queue.merchants]).toEqual([1, 1]);
  place.leave();
  place.leave();
  expect([queue.inFlight, queue.merchants]).toEqual([0, 0]);
});

test('free places go to the merchants in turn, however many of one wait', async () => {
  const queue = newQueue({ inFlightMax: 1, inFlightPerMerchantMax: 1, waitingPerMerchantMax: 100 });
  const { order, enter, leave } = newCrowd(queue);
  for (let n = 0; n < 51; n += 1) enter('flood');
  enter('b');
  enter('c');
  enter('b');
  for (let n = 0; n < 10; n += 1) {
    await turn();
    leave();
  }
  expect(order.slice(0, 8)).toEqual(['flood', 'b', 'c', 'flood', 'b', 'flood', 'flood', 'flood']);
});

test('a merchant never has more than its part, while there is room', async () => {
  const queue = newQueue();
  const { order, enter, leave } = newCrowd(queue);
  for (let n = 0; n < 4; n += 1) enter('flood');
  await turn();
  expect(order).toEqual(['flood', 'flood']);
  enter('b');
  await turn();
  expect(order).toEqual(['flood', 'flood', 'b']);
  leave('b');
  await turn();
  expect(order).toEqual(['flood', 'flood', 'b']);
  leave('flood');
  await turn();
  expect(order).toEqual(['flood', 'flood', 'b', 'flood']);
});

test('a refusal says whose calls are in the way, and when to come back', async () => {
  const queue = newQueue({ random: () => 0.999 });
  const { refused, enter } = newCrowd(queue);
  for (let n = 0; n < 6; n += 1) enter('a');
  await turn();
  expect(refused).toHaveLength(1);
  expect(refused[0]?.error).toMatchObject({
    code: 'limit.share_exceeded',
    options: { retryAfterSeconds: 3, limit: { max: 2, used: 2 } },
  });
  enter('b');
  enter('c');
  for (let n = 0; n < 4; n += 1) enter('d');
  await turn();
  expect(refused.slice(1).map(({ merchant, error }) => [merchant, error.code])).toEqual([
    ['d', 'service.overloaded'],
  ]);
});

test('who waits too long is refused, and its place in the line is free', async () => {
  const queue = newQueue({ inFlightMax: 2, waitMs: 5 });
  const { refused, places, enter } = newCrowd(queue);
  for (const merchant of ['a', 'a', 'a', 'b']) enter(merchant);
  await until('two are refused', () => refused.length >= 2);
  expect(refused.map(({ merchant, error }) => [merchant, error.code])).toEqual([
    ['a', 'limit.share_exceeded'],
    ['b', 'service.overloaded'],
  ]);
  for (const { place } of places) place.leave();
  expect([queue.inFlight, queue.merchants]).toEqual([0, 0]);
});

test('a caller that leaves is taken out of the line and takes no place later', async () => {
  const queue = newQueue({ inFlightMax: 1 });
  const { order, refused, enter, leave } = newCrowd(queue);
  const gone = new AbortController();
  enter('a');
  enter('b', gone.signal);
  enter('c');
  await turn();
  gone.abort();
  await turn();
  expect(refused.map(({ error }) => error.code)).toEqual(['request.aborted']);
  enter('d', gone.signal);
  leave();
  await turn();
  expect(order).toEqual(['a', 'c']);
  expect(refused.map(({ error }) => error.code)).toEqual(['request.aborted', 'request.aborted']);
  leave();
  expect([queue.inFlight, queue.merchants]).toEqual([0, 0]);
});

describe('whatever comes, in whatever order', () => {
  const step = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ what: fc.constant('enter' as const), who: fc.constantFrom('a', 'b', 'c', 'd') }),
    },
    { weight: 4, arbitrary: fc.record({ what: fc.constant('leave' as const), who: fc.nat(30) }) },
    { weight: 1, arbitrary: fc.record({ what: fc.constant('abort' as const), who: fc.nat(30) }) },
  );
  const options = fc.record({
    inFlightMax: fc.integer({ min: 1, max: 6 }),
    inFlightPerMerchantMax: fc.integer({ min: 1, max: 6 }),
    waitingPerMerchantMax: fc.integer({ min: 0, max: 5 }),
  });

  test('no bound is passed, no room is left unused while someone could use it, each gets one answer, and nobody starves', async () => {
    await fc.assert(
      fc.asyncProperty(options, fc.array(step, { maxLength: 60 }), async (bounds, steps) => {
        const queue = newQueue(bounds);
        const waiting: { who: string; abort: AbortController }[] = [];
        const inFlight: { who: string; place: Place }[] = [];
        let answers = 0;
        let asked = 0;
        const of = (who: string, list: { who: string }[]) => list.filter((one) => one.who === who).length;
        for (const { what, who } of steps) {
          if (what === 'enter') {
            const one = { who, abort: new AbortController() };
            asked += 1;
            waiting.push(one);
            queue.enter(who, one.abort.signal).then(
              (place) => {
                answers += 1;
                waiting.splice(waiting.indexOf(one), 1);
                inFlight.push({ who, place });
              },
              () => {
                answers += 1;
                waiting.splice(waiting.indexOf(one), 1);
              },
            );
          } else if (what === 'leave')
            inFlight.splice(who % Math.max(1, inFlight.length), 1)[0]?.place.leave();
          else waiting[who % Math.max(1, waiting.length)]?.abort.abort();
          await turn();
          expect(queue.inFlight).toBe(inFlight.length);
          expect(inFlight.length).toBeLessThanOrEqual(bounds.inFlightMax);
          for (const merchant of ['a', 'b', 'c', 'd']) {
            expect(of(merchant, inFlight)).toBeLessThanOrEqual(bounds.inFlightPerMerchantMax);
            expect(of(merchant, waiting)).toBeLessThanOrEqual(bounds.waitingPerMerchantMax);
            const couldUse =
              of(merchant, waiting) > 0 && of(merchant, inFlight) < bounds.inFlightPerMerchantMax;
            expect(couldUse && inFlight.length < bounds.inFlightMax).toBe(false);
          }
        }
        // Whoever waits is served when the others leave: nobody is forgotten.
        while (inFlight.length > 0) {
          inFlight.shift()?.place.leave();
          await turn();
        }
        expect([waiting.length, answers, queue.inFlight, queue.merchants]).toEqual([0, asked, 0, 0]);
      }),
      { numRuns: 150 },
    );
  });

  test('with k merchants waiting, each is served once in every k turns', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 2, maxLength: 8 }),
        async (sizes) => {
          const queue = newQueue({ inFlightMax: 1, inFlightPerMerchantMax: 2, waitingPerMerchantMax: 20 });
          const { order, enter, leave } = newCrowd(queue);
          enter('first');
          sizes.forEach((size, index) => {
            for (let n = 0; n < size; n += 1) enter(`m${String(index)}`);
          });
          for (let n = 0; n < sizes.reduce((sum, size) => sum + size, 0); n += 1) {
            await turn();
            leave();
          }
          await turn();
          const left = [...sizes];
          let at = 1;
          for (let round = 0; left.some((size) => size > 0); round += 1) {
            const expected = left.flatMap((size, index) => (size > 0 ? [`m${String(index)}`] : []));
            expect(order.slice(at, at + expected.length)).toEqual(expected);
            at += expected.length;
            left.forEach((size, index) => (left[index] = Math.max(0, size - 1)));
          }
        },
      ),
      { numRuns: 50 },
    );
  });
});
