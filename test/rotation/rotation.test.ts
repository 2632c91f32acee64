import { randomInt } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { Chance } from '../crash/chance.ts';
import { newTestDatabase } from '../support/database.ts';
import { STEPS } from './deaths.ts';
import { problemsOf, runRotations } from './run.ts';
import { Town } from './town.ts';

/** The long version is `npm run test:rotation`. */
const SEED = randomInt(1_000_000);

test('rotations under load on two replicas, one of them killed in the middle of one: no call fails', async () => {
  await using database = await newTestDatabase();
  await using town = await Town.open({ database });
  const death = new Chance(SEED).one(Object.keys(STEPS) as [string]);
  const result = await runRotations(town, {
    seed: SEED,
    forMs: 3_000,
    everyMs: 700,
    deaths: [death],
    callers: 4,
  });
  expect({ seed: SEED, death, problems: problemsOf(result) }).toEqual({ seed: SEED, death, problems: [] });
  expect(result.rotations).toBeGreaterThan(0);
  expect(result.byCurrent).toBeGreaterThan(0);
}, 180_000);
