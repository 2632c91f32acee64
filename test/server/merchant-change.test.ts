import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { onboard, operatorOf } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

let service: TestService;
beforeAll(async () => {
  service = await startTestService();
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

test('an operator puts a merchant on a plan: its latest version, or the one that is named; a plan that is not there changes nothing', async () => {
  await onboard(service, 'acme');
  const operator = operatorOf(service);
  const planOf = async (body: object) => {
    const { status, json } = await operator.send('PATCH', '/api/ops/merchants/acme', body);
    return { status, said: json['plan'] ?? json['code'] };
  };
  for (const max of [10, 20])
    await operator.post('/api/ops/plans', { id: 'small', spec: { requestsPerDay: { max } } });
  expect(await planOf({ plan: 'small' })).toEqual({ status: 200, said: 'small@2' });
  expect(await planOf({ plan: 'small@1' })).toEqual({ status: 200, said: 'small@1' });
  expect(await planOf({ plan: 'small@3' })).toEqual({ status: 404, said: 'plan.not_found' });
  expect(await planOf({ plan: 'other' })).toEqual({ status: 404, said: 'plan.not_found' });
  expect(await planOf({ override: { spec: { maxTokens: 5 } } })).toEqual({ status: 200, said: 'small@1' });
});
