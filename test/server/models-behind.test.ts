import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { AWS } from '../support/aws-keys.ts';
import { setPlan, setPrice, withAdmin } from '../support/limits.ts';
import { converseBody, onboard, runtimeCalls } from '../support/people.ts';
import type { MerchantPerson } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import type { ServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const OF_A = `arn:aws:bedrock:us-east-1:${AWS.merchantA.accountId}`;
const PROFILE = `${OF_A}:application-inference-profile/abcdefghijkl`;
const PROVISIONED = `${OF_A}:provisioned-model/abcdefghijkl`;

let service: TestService;
/** Started when the price is there. */
let priced: ServiceProcess;
let merchants = 0;

beforeAll(async () => {
  service = await startTestService();
  for (const arn of [PROFILE, PROVISIONED]) service.standIn.addModelArn(arn, MODEL);
  await setPrice(service, MODEL, { input: 1, output: 2 });
  priced = await startServiceProcess(service.env);
});
afterEach(() => {
  service.standIn.forget();
});
afterAll(async () => {
  await priced[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

/** What an ARN runs is remembered per merchant, so each test has its own. */
function newMerchant(): Promise<MerchantPerson> {
  merchants++;
  return onboard({ ...service, url: priced.url }, `behind-${String(merchants)}`);
}

function converse(merchant: MerchantPerson, modelId: string) {
  return merchant.post(`/model/${encodeURIComponent(modelId)}/converse`, converseBody('hello'));
}

async function rowsOf({ merchantId }: MerchantPerson): Promise<unknown[]> {
  return withAdmin(service, async (admin) => {
    const columns = 'model_id, base_model_id, cost_nano IS NOT NULL AS priced';
    const { rows } = await admin.query(`SELECT ${columns} FROM calls WHERE merchant_id = $1`, [merchantId]);
    return rows;
  });
}

const questions = () =>
  service.standIn.journal.filter(({ operation }) => operation === 'GetInferenceProfile').length;

test('an application inference profile is priced as its model, and AWS is asked once', async () => {
  const merchant = await newMerchant();
  const answers = await Promise.all([1, 2, 3].map(() => converse(merchant, PROFILE)));
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
  const row = { model_id: PROFILE, base_model_id: MODEL, priced: true };
  expect(await rowsOf(merchant)).toEqual([row, row, row]);
  expect(questions()).toBe(1);
});

test('provisioned throughput counts for its model and has no price per token', async () => {
  const merchant = await newMerchant();
  expect((await converse(merchant, PROVISIONED)).status).toBe(200);
  expect(await rowsOf(merchant)).toEqual([{ model_id: PROVISIONED, base_model_id: MODEL, priced: false }]);
});

test('a list of allowed models holds for what stands behind an ARN', async () => {
  const merchant = await newMerchant();
  await setPlan(service, merchant.merchantId, { models: ['anthropic.*'] });
  expect((await converse(merchant, PROFILE)).text).toContain('limit.model_not_allowed');
  await setPlan(service, merchant.merchantId, { models: ['amazon.nova-*'] });
  expect((await converse(merchant, PROFILE)).status).toBe(200);
  expect(runtimeCalls(service)).toHaveLength(1);
});

test.each(['AccessDeniedException', 'ThrottlingException', 'ResourceNotFoundException'])(
  'what AWS does not say (%s) stays unpriced, and is on no list; the call is made all the same',
  async (type) => {
    const merchant = await newMerchant();
    const status = type === 'ThrottlingException' ? 429 : 403;
    service.standIn.fault({ operation: 'GetInferenceProfile', status, type, times: 'always' });
    expect((await converse(merchant, PROFILE)).status).toBe(200);
    expect(await rowsOf(merchant)).toEqual([{ model_id: PROFILE, base_model_id: PROFILE, priced: false }]);
    await setPlan(service, merchant.merchantId, { models: ['amazon.nova-*'] });
    expect((await converse(merchant, PROFILE)).text).toContain('limit.model_not_allowed');
  },
);
