import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Batcher } from '../../src/ledger/batcher.ts';

interface Item {
  owner: string;
  n: number;
}

/** Keeps the batches, and runs each for one turn of the event loop. */
function newBatcher(sizeMax: number, partMax = sizeMax) {
  const batches: Item[][] = [];
  const clock = { ms: 0 };
  const batcher = new Batcher<Item, Item>({
    sizeMax,
    turns: { ownerOf: ({ owner }) => owner, partMax },
    now: () => clock.ms,
    run: async (items) => {
      batches.push([...items]);
      await new Promise((resolve) => setImmediate(resolve));
      return items;
    },
  });
  return { batches, batcher, clock };
}

test('one owner’s flood fills no batch that others wait for', async () => {
  const { batches, batcher } = newBatcher(10);
  const flood = Array.from({ length: 500 }, (_, n) => batcher.add({ owner: 'flood', n }));
  await new Promise((resolve) => setImmediate(resolve));
  const others = ['b', 'c', 'b'].map((owner, n) => batcher.add({ owner, n }));
  await Promise.all(others);
  expect(batches.length).toBeLessThanOrEqual(3);
  expect(batches[1]?.map(({ owner }) => owner)).toEqual([
    ...Array<string>(3).fill('flood'),
    'b',
    'b',
    'c',
    ...Array<string>(4).fill('flood'),
  ]);
  await Promise.all(flood);
});

test('while others are about one owner makes no long batches; alone it has them whole', async () => {
  const { batches, batcher, clock } = newBatcher(100, 10);
  const flood = (count: number) =>
    Promise.all(Array.from({ length: count }, (_, n) => batcher.add({ owner: 'flood', n })));
  const sizes = () => batches.splice(0).map((batch) => batch.length);
  await Promise.all([batcher.add({ owner: 'b', n: 0 }), flood(25)]);
  expect(sizes()).toEqual([11, 10, 5]);
  clock.ms += 999;
  await flood(25);
  expect(sizes()).toEqual([10, 10, 5]);
  clock.ms += 1;
  await flood(125);
  expect(sizes()).toEqual([100, 25]);
  // Somebody comes again while a long one is on its way: it was the last.
  const running = flood(150);
  await new Promise((resolve) => setImmediate(resolve));
  await Promise.all([batcher.add({ owner: 'b', n: 1 }), running]);
  expect(sizes()).toEqual([100, 11, 10, 10, 10, 10]);
});

test('every item is run once, in its owner’s order, in batches that are full while anyone waits, each owner with its part', async () => {
  const items = fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e'), { minLength: 1, maxLength: 200 });
  await fc.assert(
    fc.asyncProperty(items, fc.integer({ min: 1, max: 20 }), async (owners, sizeMax) => {
      const { batches, batcher } = newBatcher(sizeMax);
      const left = new Map<string, number>();
      const answers = await Promise.all(
        owners.map((owner, n) => {
          left.set(owner, (left.get(owner) ?? 0) + 1);
          return batcher.add({ owner, n });
        }),
      );
      expect(answers).toEqual(owners.map((owner, n) => ({ owner, n })));
      for (const owner of left.keys()) {
        const numbers = batches.flat().flatMap((item) => (item.owner === owner ? [item.n] : []));
        expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
      }
      let waiting = owners.length;
      for (const batch of batches) {
        expect(batch).toHaveLength(Math.min(sizeMax, waiting));
        waiting -= batch.length;
        const part = Math.floor(sizeMax / [...left.values()].filter((count) => count > 0).length);
        for (const [owner, count] of left) {
          const got = batch.filter((item) => item.owner === owner).length;
          expect(got).toBeGreaterThanOrEqual(Math.min(count, part));
          left.set(owner, count - got);
        }
      }
    }),
    { numRuns: 100 },
  );
});
