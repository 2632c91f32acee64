import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { BodyBudget, BodyLease } from '../../src/http/body-budget.ts';

test('an owner may have its part, others have the rest, and who is refused is told whose bodies are in the way', () => {
  const budget = new BodyBudget(100, 40);
  const [a, b] = [budget.shareOf('a'), budget.shareOf('b')];
  expect(a.tryTake(40)).toBe(true);
  expect(() => a.tryTake(1)).toThrow(
    expect.objectContaining({ code: 'limit.share_exceeded', options: { retryAfterSeconds: 2 } }),
  );
  expect(b.tryTake(40)).toBe(true);
  expect(budget.shareOf('c').tryTake(21)).toBe(false);
  a.release(40);
  expect(budget.shareOf('a').tryTake(40)).toBe(true);
  new BodyLease(Buffer.alloc(0), b, 40)[Symbol.dispose]();
  expect(budget.inUse).toBe(40);
});

test('no sum is passed, and what was given back is free again', () => {
  const step = fc.record({ owner: fc.constantFrom('a', 'b', 'c'), bytes: fc.integer({ min: -1, max: 40 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const budget = new BodyBudget(100, 40);
      const held: { owner: string; bytes: number }[] = [];
      const sum = (owner?: string) =>
        held.reduce((all, one) => all + (owner === undefined || one.owner === owner ? one.bytes : 0), 0);
      for (const { owner, bytes } of steps) {
        const share = budget.shareOf(owner);
        if (bytes < 0) {
          const at = held.findIndex((one) => one.owner === owner);
          if (at >= 0) share.release(held.splice(at, 1)[0]?.bytes ?? 0);
        } else {
          const fitsShare = sum(owner) + bytes <= 40;
          if (!fitsShare) expect(() => share.tryTake(bytes)).toThrow('limit.share_exceeded');
          else if (share.tryTake(bytes)) held.push({ owner, bytes });
          else expect(sum() + bytes).toBeGreaterThan(100);
        }
        expect(budget.inUse).toBe(sum());
        expect(sum()).toBeLessThanOrEqual(100);
      }
    }),
  );
});
