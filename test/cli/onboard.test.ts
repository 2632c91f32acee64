import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { MerchantPerson } from '../support/people.ts';
import { replay } from './replay.ts';
import type { Stage } from './replay.ts';
import { newStage, secretsKept } from './stage.ts';
import { runCommand } from './transcript.ts';

let service: TestService;
let stage: Stage;

beforeAll(async () => {
  service = await startTestService();
  stage = await newStage(service);
});
afterAll(() => service[Symbol.asyncDispose]());

describe('onboard, through a running service', () => {
  test.each(['service/onboarded.txt', 'service/refused.txt'])('%s', async (file) => {
    await replay(file, stage);
  });
});

describe('onboard, in the database', () => {
  test('database/onboarded.txt', async () => {
    await using other = await startTestService();
    await replay('database/onboarded.txt', { ...(await newStage(other)), env: other.env });
  });
});
