import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/env.ts';
import { build } from '../../src/container.ts';
import { newLogger } from '../../src/observability/logger.ts';
import { AWS } from '../support/aws-keys.ts';
import { differencesOf, setPlan, setPrice, withAdmin } from '../support/limits.ts';
import { converseBody, MerchantPerson, onboard, operatorOf } from '../support/people.ts';
import { startServiceProcess } from '../support/process.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { awayFromMidnight } from '../support/calendar.ts';
import { takeOver } from '../support/take-over.ts';
import { eventually, until } from '../support/until.ts';

const MODEL = 'amazon.nova-micro-v1:0';
const CLAUDE = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const GROUP = '/aws/bedrock/logs';
const BUCKET = 'logs.of-merchant-a';
/** Stands in prompts, and so in invocation logs: nothing of ours may ever hold it. */
const PROMPT = 'confidential-prompt';

let service: TestService;
/** What the service does every half minute: here only when it is told to. */
let ownLook: () => Promise<void>;
let merchants = 0;

beforeAll(() => awayFromMidnight(), 180_000);
beforeAll(async () => {
  service = await startTestService({ DRAIN_TIMEOUT_MS: '1500' });
  ownLook = takeOver(service.service, 'reconcile');
  await setPrice(service, MODEL, { input: 2, output: 10 });
}, 60_000);
beforeEach(() => {
  service.standIn.forget();
});
afterAll(async () => {
  await service[Symbol.asyncDispose]();
});

/** A merchant whose account logs to CloudWatch and to S3. */
async function newMerchant(
  logs?: Record<string, unknown>,
  options: Parameters<typeof onboard>[2] = {},
): Promise<MerchantPerson> {
  merchants += 1;
  service.standIn.logInvocations({
    accountId: AWS.merchantA.accountId,
    region: 'us-east-1',
    logGroup: GROUP,
    bucket: BUCKET,
    prefix: 'bedrock/eu',
  });
  const merchant = await onboard(service, `lost-${String(merchants)}`, options);
  if (logs !== undefined) expect((await setLogs(merchant, logs)).status).toBe(200);
  return merchant;
}

function setLogs(merchant: MerchantPerson, invocationLogs: unknown) {
  return operatorOf(service).send('PATCH', `/api/ops/merchants/${merchant.merchantId}`, { invocationLogs });
}

const CLOUD_WATCH = { cloudWatch: { logGroup: GROUP } };
const S3 = { s3: { bucket: BUCKET, prefix: 'bedrock/eu' } };

/** A call that runs at AWS and whose answer breaks off, so that nobody knows what it used. */
async function lose(merchant: MerchantPerson, words = 7): Promise<void> {
  service.standIn.fault({ operation: 'Converse', cutBody: true });
  const answer = await merchant.post(
    `/model/${MODEL}/converse`,
    converseBody(`${PROMPT} STAND_IN_WORDS=${String(words)}`, 100),
  );
  expect(answer.status).toBe(502);
}

interface Row {
  id: string;
  state: string;
  provenance: string | null;
  reason: string | null;
  input: number;
  output: number;
  hold: number;
  max: number;
  cost: number | null;
  seen_input: number | null;
  seen_output: number | null;
  tries: number;
  waits: number | null;
}

function rowsOf({ merchantId }: MerchantPerson): Promise<Row[]> {
  return withAdmin(service, async (admin) => {
    const { rows } = await admin.query<Row>(
      `SELECT id, state, provenance, reason, input_tokens::int AS input, output_tokens::int AS output, hold_tokens::int AS hold, max_tokens::int AS max,
         cost_nano::int AS cost, seen_input_tokens::int AS seen_input, seen_output_tokens::int AS seen_output, reconcile_tries AS tries,
         round(extract(epoch FROM reconcile_at - now()))::int AS waits
       FROM calls WHERE merchant_id = $1 ORDER BY id`,
      [merchantId],
    );
    return rows;
  });
}

/** Lets the time pass until unknown calls are looked at again; `minutes`: and since they became unknown. */
function waitFor({ merchantId }: MerchantPerson, minutes = 0): Promise<unknown> {
  return withAdmin(service, (admin) =>
    admin.query(
      `UPDATE calls SET reconcile_at = now(), resolved_at = resolved_at - make_interval(mins => $2) WHERE merchant_id = $1 AND state = 'unknown'`,
      [merchantId, minutes],
    ),
  );
}

async function reconcile(merchant: MerchantPerson, minutes = 0): Promise<Row[]> {
  await waitFor(merchant, minutes);
  await ownLook();
  return rowsOf(merchant);
}

/** What of the merchant's logs was read. */
function reads() {
  return service.standIn.journal.filter((entry) => entry.service === 'logs' || entry.service === 's3');
}

async function auditOf(merchant: MerchantPerson): Promise<Record<string, unknown>[]> {
  return (await merchant.get('/audit?limit=200')).json['items'] as Record<string, unknown>[];
}

describe('from the logs', () => {
  test.each([
    ['CloudWatch', CLOUD_WATCH, 'FilterLogEvents'],
    ['S3', S3, 'GetObject'],
  ])('a process killed in the middle of a call: its true usage is found in %s', async (_, logs, read) => {
    const merchant = await newMerchant(logs);
    await using victim = await startServiceProcess({ ...service.env, LOG_LEVEL: 'silent' });
    const { merchantId, token = '', credentialId, apiKeyId } = merchant;
    const person = new MerchantPerson(victim.url, { merchantId, token, credentialId, apiKeyId });
    service.standIn.fault({ operation: 'ConverseStream', eventDelayMs: 150 });
    const running = person
      .post(`/model/${MODEL}/converse-stream`, converseBody(`${PROMPT} STAND_IN_WORDS=60`, 200))
      .catch(() => undefined);
    const atAws = () => service.standIn.journal.find(({ operation }) => operation === 'ConverseStream');
    await until('it streams', () => (atAws()?.eventsSent ?? 0) >= 3);
    await victim.end('SIGKILL');
    await running;
    await until('AWS is done', () => atAws()?.outcome !== 'open');
    await withAdmin(service, async (admin) => {
      await admin.query(
        `UPDATE processes SET lease_until = now() - interval '1 second' WHERE id = (SELECT process_id FROM calls WHERE merchant_id = $1)`,
        [merchantId],
      );
      await admin.query('SELECT ledger_sweep(1000)');
    });
    expect(await rowsOf(merchant)).toMatchObject([{ state: 'unknown', tries: 0 }]);

    const [row] = await reconcile(merchant);
    const { usage } = atAws() ?? {};
    expect(row).toMatchObject({
      state: 'settled',
      provenance: 'log',
      input: usage?.input,
      output: 60,
      tries: 1,
      waits: null,
    });
    expect(reads().map(({ operation }) => operation)).toContain(read);
    expect(await differencesOf(service, merchantId)).toEqual([]);
  });

  test('several calls in S3: found in one pass over the hour, each batch read once, and nothing of the log is kept', async () => {
    const merchant = await newMerchant(S3);
    for (let words = 1; words <= 7; words += 1) {
      await lose(merchant, words);
      await merchant.post(`/model/${MODEL}/converse`, converseBody('in between', 10));
    }
    const rows = await reconcile(merchant);
    const lost = rows.filter(({ provenance }) => provenance === 'log');
    expect(lost.map(({ output }) => output)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    const read = reads().filter(({ operation }) => operation === 'GetObject');
    expect(read.length).toBeGreaterThan(2);
    expect(new Set(read.map(({ path }) => path)).size).toBe(read.length);
    expect(read.filter(({ path }) => path.includes('/data/'))).toEqual([]);
    expect(service.logLines.join('')).not.toContain(PROMPT);
    expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  });

  test('twenty-five calls in CloudWatch take three filters', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    for (let call = 0; call < 25; call += 1) await lose(merchant);
    const rows = await reconcile(merchant);
    expect(rows.map(({ provenance }) => provenance)).toEqual(Array(25).fill('log'));
    expect(reads()).toHaveLength(6);
  });

  test('an error in the log without tokens is void; the hold is free again', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    service.standIn.fault({ operation: 'Converse', status: 500, type: 'InternalServerException' });
    await merchant.post(`/model/${MODEL}/converse`, converseBody('fails', 10));
    expect(await rowsOf(merchant)).toMatchObject([{ state: 'unknown' }]);
    expect(await reconcile(merchant)).toMatchObject([{ state: 'void', reason: 'AWS logged an error' }]);
    expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  });

  test('more in the log than was held: the overrun is told and stops the merchant', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    await setPlan(service, merchant.merchantId, { tokensPerDay: { max: 100_000 } });
    await lose(merchant, 50);
    await withAdmin(service, (admin) =>
      admin.query(
        `WITH less AS (UPDATE calls SET hold_tokens = 5, max_tokens = 1 WHERE merchant_id = $1 RETURNING 1)
         UPDATE counters SET tokens_unknown = 5 WHERE merchant_id = $1 AND tokens_unknown > 0`,
        [merchant.merchantId],
      ),
    );
    expect(await reconcile(merchant)).toMatchObject([{ state: 'settled', provenance: 'log', output: 50 }]);
    expect((await merchant.get('/limits')).json).toMatchObject({ code: 'merchant.not_active' });
    expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  });

  test('a record that is not in the log yet: looked for again after 2, 4, 8 minutes, and found when it comes', async () => {
    const merchant = await newMerchant();
    await lose(merchant);
    expect((await rowsOf(merchant))[0]?.waits).toBeGreaterThan(90);
    for (const minutes of [2, 4, 8]) {
      const [row] = await reconcile(merchant);
      expect(row?.state).toBe('unknown');
      expect(Math.abs((row?.waits ?? 0) - minutes * 60)).toBeLessThan(30);
    }
    // Logs that are named later are looked at at once.
    await setLogs(merchant, CLOUD_WATCH);
    await ownLook();
    expect(await rowsOf(merchant)).toMatchObject([{ state: 'settled', provenance: 'log', tries: 4 }]);
  });

  test('a record with the id of the call but of another request is not the call’s', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    await lose(merchant);
    await withAdmin(service, (admin) =>
      admin.query(`UPDATE calls SET aws_request_id = 'another' WHERE merchant_id = $1`, [
        merchant.merchantId,
      ]),
    );
    expect(await reconcile(merchant)).toMatchObject([{ state: 'unknown' }]);
  });
});

describe('logs that cannot be read', () => {
  test.each([
    ['CloudWatch', CLOUD_WATCH, 'logs:FilterLogEvents', 'AccessDeniedException'],
    ['a listing of S3', S3, 's3:ListBucket', 'AccessDenied'],
    ['an object of S3', S3, 's3:GetObject', 'AccessDenied'],
  ])(
    '%s denied: warned, tried again, and decided by policy when its time has come',
    async (_, logs, deny, reason) => {
      const merchant = await newMerchant(logs);
      await lose(merchant, 3);
      service.standIn.addAccessKey({ ...AWS.merchantA, deny: [deny] });
      const logged = service.logLines.length;
      expect(await reconcile(merchant)).toMatchObject([{ state: 'unknown', tries: 1 }]);
      const warned = service.logLines.slice(logged).filter((line) => line.includes('invocation logs'));
      expect(warned.map((line) => JSON.parse(line) as object)).toMatchObject([
        { merchantId: merchant.merchantId, calls: 1, reason },
      ]);
      expect(await reconcile(merchant, 1_439)).toMatchObject([{ state: 'unknown', tries: 2 }]);
      const [row] = await reconcile(merchant, 2);
      expect(row).toMatchObject({ state: 'settled', provenance: 'estimated', output: 100 });
      expect((row?.input ?? 0) + (row?.output ?? 0)).toBe(row?.hold);
      expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
    },
  );

  test('a log group that is not there, a merchant without a credential that can read', async () => {
    const merchant = await newMerchant({ cloudWatch: { logGroup: 'nowhere' } });
    await lose(merchant);
    expect(await reconcile(merchant)).toMatchObject([{ state: 'unknown' }]);
    await merchant.send('DELETE', `/credentials/${merchant.credentialId}`);
    expect(await reconcile(merchant)).toMatchObject([{ state: 'unknown' }]);
    const reasons = service.logLines.filter(
      (line) => line.includes(merchant.merchantId) && line.includes('invocation logs'),
    );
    expect(reasons.map((line) => (JSON.parse(line) as { reason: string }).reason)).toEqual([
      'ResourceNotFoundException',
      expect.stringMatching(/^(no default credential|credential\..*)$/),
    ]);
  });
});

describe('whose logs', () => {
  test('a merchant that names another one’s log group or bucket reads with its own keys, and finds nothing', async () => {
    const owner = await newMerchant(CLOUD_WATCH);
    await lose(owner);
    const [{ id } = { id: '' }] = await rowsOf(owner);
    for (const logs of [CLOUD_WATCH, S3]) {
      const thief = await newMerchant(logs, { awsKey: AWS.merchantB });
      await lose(thief);
      const before = reads().length;
      expect(await reconcile(thief)).toMatchObject([{ state: 'unknown' }]);
      const own = reads().slice(before);
      expect(own.length).toBeGreaterThan(0);
      expect(new Set(own.map(({ accessKeyId }) => accessKeyId))).toEqual(
        new Set([AWS.merchantB.accessKeyId]),
      );
      expect(own.every(({ status = 0 }) => status >= 400)).toBe(true);
      expect(
        own.map(({ path, bodyBase64 }) => path + Buffer.from(bodyBase64, 'base64').toString()).join(''),
      ).not.toContain(id);
    }
  });

  test('calls of another account than the reader’s are not looked for at all', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    service.standIn.fault({ operation: 'Converse', cutBody: true });
    await merchant.post(`/model/${MODEL}/converse`, converseBody('x', 10), {
      'x-bedrock-use-service-defaults': 'true',
    });
    expect(await reconcile(merchant)).toMatchObject([{ state: 'unknown', tries: 1 }]);
    expect(reads()).toEqual([]);
  });

  test('the credential that is named reads, and it must be the merchant’s own', async () => {
    const merchant = await newMerchant();
    const other = await newMerchant();
    expect(await setLogs(merchant, { ...CLOUD_WATCH, credentialId: other.credentialId })).toMatchObject({
      status: 404,
      json: { code: 'credential.not_found' },
    });
    const key = AWS.merchantADirect;
    const stored = await merchant.post('/credentials', {
      kind: 'access-key',
      name: 'log reader',
      region: 'us-east-1',
      awsAccessKeyId: key.accessKeyId,
      awsSecretAccessKey: key.secretAccessKey,
    });
    const credentialId = (stored.json['id'] ?? stored.json['credentialId']) as string;
    expect((await setLogs(merchant, { ...CLOUD_WATCH, credentialId })).status).toBe(200);
    await lose(merchant);
    expect(await reconcile(merchant)).toMatchObject([{ state: 'settled', provenance: 'log' }]);
    expect(new Set(reads().map(({ accessKeyId }) => accessKeyId))).toEqual(new Set([key.accessKeyId]));
    const audited = (await auditOf(merchant)).filter(({ action }) => action === 'merchant.updated');
    expect(JSON.stringify(audited)).toContain(credentialId);
    expect((await setLogs(merchant, null)).status).toBe(200);
    const before = reads().length;
    await lose(merchant);
    await reconcile(merchant);
    expect(reads()).toHaveLength(before);
  });

  test.each([
    {},
    { cloudWatch: { logGroup: 'a b' } },
    { s3: { bucket: 'UPPER' } },
    { s3: { bucket: 'ok-bucket', prefix: '../up' } },
    { s3: { bucket: 'ok-bucket', prefix: '/lead' } },
    { ...CLOUD_WATCH, ...S3 },
    { ...CLOUD_WATCH, credentialId: 'x' },
  ])('no such place: %j', async (logs) => {
    const merchant = await newMerchant();
    expect(await setLogs(merchant, logs)).toMatchObject({ status: 400, json: { code: 'request.invalid' } });
  });
});

describe('by policy', () => {
  /** A stream that breaks off in its middle, so that some of it came. */
  async function loseStream(merchant: MerchantPerson, modelId = MODEL): Promise<void> {
    const converse = modelId === MODEL;
    service.standIn.fault({
      operation: converse ? 'ConverseStream' : 'InvokeModelWithResponseStream',
      cutAtEvent: 4,
    });
    const body = converse
      ? converseBody('one two three STAND_IN_WORDS=40', 500)
      : {
          anthropic_version: 'bedrock-2023-05-31',
          max_tokens: 500,
          messages: [{ role: 'user', content: 'one two three STAND_IN_WORDS=40' }],
        };
    await merchant.post(
      `/model/${modelId}/${converse ? 'converse-stream' : 'invoke-with-response-stream'}`,
      body,
    );
  }

  test.each(['most', 'seen'] as const)('%s, of a stream of which some came', async (whenUnknown) => {
    const merchant = await newMerchant();
    await setPlan(service, merchant.merchantId, { whenUnknown, unknownAfterMinutes: 5 });
    await loseStream(merchant);
    const [lost] = await rowsOf(merchant);
    // Three deltas of four words each at most.
    expect(lost).toMatchObject({ state: 'unknown', seen_input: null });
    expect(lost?.seen_output).toBeGreaterThanOrEqual(8);
    expect(lost?.seen_output).toBeLessThan(200);
    expect(await reconcile(merchant, 4)).toMatchObject([{ state: 'unknown' }]);
    const [row] = await reconcile(merchant, 2);
    expect(row).toMatchObject({
      state: 'settled',
      provenance: 'estimated',
      input: (lost?.hold ?? 0) - 500,
      output: whenUnknown === 'most' ? 500 : lost?.seen_output,
    });
    expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
    const sums = await withAdmin(
      service,
      async (admin) =>
        (
          await admin.query('SELECT estimated::int, unknown::int FROM usage_days WHERE merchant_id = $1', [
            merchant.merchantId,
          ])
        ).rows,
    );
    expect(sums).toEqual([{ estimated: 1, unknown: 0 }]);
  });

  test('what AWS told of the input counts, where it did', async () => {
    const merchant = await newMerchant();
    await loseStream(merchant, CLAUDE);
    const usage = service.standIn.journal.find(({ executed }) => executed)?.usage;
    const [lost] = await rowsOf(merchant);
    expect(lost).toMatchObject({ state: 'unknown', seen_input: usage?.input });
    expect(lost?.hold).toBeGreaterThan(500 + (usage?.input ?? 0));
    expect(await reconcile(merchant, 2_000)).toMatchObject([
      { state: 'settled', input: usage?.input, output: 500 },
    ]);
  });

  test('an answer cut off whose headers told its tokens counts as that', async () => {
    const merchant = await newMerchant();
    service.standIn.fault({ operation: 'InvokeModel', cutBody: true });
    await merchant.post(`/model/${CLAUDE}/invoke`, {
      anthropic_version: 'bedrock-2023-05-31',
      max_tokens: 500,
      messages: [{ role: 'user', content: 'STAND_IN_WORDS=9' }],
    });
    expect(await rowsOf(merchant)).toMatchObject([{ state: 'unknown', seen_output: 9 }]);
    expect(await reconcile(merchant, 2_000)).toMatchObject([
      { provenance: 'estimated', output: 9, input: 1 },
    ]);
  });

  test('a client that leaves: its stream is read on, and what was seen is kept when it does not end in time', async () => {
    const merchant = await newMerchant();
    service.standIn.fault({ operation: 'ConverseStream', eventDelayMs: 60 });
    const leave = new AbortController();
    const answer = await fetch(`${merchant.baseUrl}/model/${MODEL}/converse-stream`, {
      method: 'POST',
      headers: { authorization: `Bearer ${merchant.token ?? ''}`, 'content-type': 'application/json' },
      body: JSON.stringify(converseBody('STAND_IN_WORDS=400', 500)),
      signal: leave.signal,
    });
    await answer.body?.getReader().read();
    leave.abort();
    const [row] = await eventually(
      () => rowsOf(merchant),
      ([one]) => one?.state !== 'held',
    );
    expect(row).toMatchObject({ state: 'unknown', reason: 'stream broke off' });
    // At the time it left there was one delta at most.
    expect(row?.seen_output).toBeGreaterThan(20);
  });

  test('keep: it stays unknown, and counted, until an operator decides', async () => {
    const merchant = await newMerchant();
    await setPlan(service, merchant.merchantId, { whenUnknown: 'keep', tokensPerDay: { max: 100_000 } });
    await lose(merchant);
    const [row] = await reconcile(merchant, 100_000);
    expect(row).toMatchObject({ state: 'unknown' });
    expect(row?.waits).toBeGreaterThan(80_000);
    const unknown = await operatorOf(service).get('/api/ops/unknown?limit=200');
    expect(unknown.json['items']).toContainEqual({
      merchantId: merchant.merchantId,
      calls: 1,
      oldest: expect.any(String),
      holdTokens: row?.hold,
      holdNanoUsd: expect.any(Number),
    });
  });
});

describe('by hand', () => {
  const path = (merchant: MerchantPerson, id: string) =>
    `/api/ops/merchants/${merchant.merchantId}/calls/${id}/resolve`;

  test('settled with what the operator says, or void; both with the reason in the audit trail, and only once', async () => {
    const merchant = await newMerchant();
    const operator = operatorOf(service);
    await lose(merchant);
    await lose(merchant);
    const [first, second] = (await rowsOf(merchant)) as [Row, Row];
    const settled = { state: 'settled', inputTokens: 11, outputTokens: 22, reason: 'bill of November' };
    expect(await operator.post(path(merchant, first.id), settled)).toMatchObject({
      status: 200,
      json: { id: first.id, state: 'settled' },
    });
    expect(
      (await operator.post(path(merchant, second.id), { state: 'void', reason: 'AWS says so' })).status,
    ).toBe(200);
    expect(await rowsOf(merchant)).toMatchObject([
      { state: 'settled', provenance: 'operator', input: 11, output: 22 },
      { state: 'void' },
    ]);
    const decided = (await auditOf(merchant)).filter(({ action }) => action === 'call.decided');
    expect(decided).toHaveLength(2);
    expect(JSON.stringify(decided)).toContain('bill of November');
    expect(decided.map(({ actor }) => actor)).toEqual(Array(2).fill(expect.stringMatching(/^operator:/)));
    expect(await operator.post(path(merchant, first.id), settled)).toMatchObject({
      status: 409,
      json: { code: 'call.not_unknown', state: 'settled' },
    });
    expect((await auditOf(merchant)).filter(({ action }) => action === 'call.decided')).toHaveLength(2);
    expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
  });

  test('a call of another merchant, no call, no id, a reason that could be a secret', async () => {
    const merchant = await newMerchant();
    const other = await newMerchant();
    await lose(other);
    const [{ id } = { id: '' }] = await rowsOf(other);
    const operator = operatorOf(service);
    const body = { state: 'void', reason: 'because' };
    for (const callId of [id, '019ab000-0000-7000-8000-000000000000', 'x'])
      expect(await operator.post(path(merchant, callId), body)).toMatchObject({
        status: 404,
        json: { code: 'call.not_found' },
      });
    for (const reason of ['', ' ', 'x'.repeat(201), 'A'.repeat(40), 'line\nbreak'])
      expect((await operator.post(path(other, id), { ...body, reason })).status).toBe(400);
    expect((await operator.post(path(other, id), { state: 'settled', reason: 'no counts' })).status).toBe(
      400,
    );
    expect((await merchant.post(path(merchant, id), body)).status).toBe(403);
    expect(await rowsOf(other)).toMatchObject([{ state: 'unknown' }]);
  });
});

test('two replicas and an operator at once: each call is resolved once', async () => {
  const merchant = await newMerchant(CLOUD_WATCH);
  for (let call = 0; call < 12; call += 1) await lose(merchant);
  const { config, secrets } = readConfig(service.env);
  await using replica = await build(config, secrets, { logger: newLogger('silent') });
  await waitFor(merchant);
  const again = async () => {
    for (let round = 0; round < 4; round += 1) {
      await Promise.all([replica.reconcile(), ownLook(), waitFor(merchant)]);
    }
  };
  const decisions = (await rowsOf(merchant)).slice(0, 4).map(({ id }) =>
    operatorOf(service).post(`/api/ops/merchants/${merchant.merchantId}/calls/${id}/resolve`, {
      state: 'void',
      reason: 'race',
    }),
  );
  const [answers] = await Promise.all([Promise.all(decisions), again()]);
  const rows = await rowsOf(merchant);
  expect(rows.every(({ state }) => state === 'settled' || state === 'void')).toBe(true);
  expect(rows.filter(({ state }) => state === 'void')).toHaveLength(
    answers.filter(({ status }) => status === 200).length,
  );
  const resolved = (await auditOf(merchant)).filter(
    ({ action }) => action === 'call.settled' || action === 'call.void',
  );
  expect(resolved).toHaveLength(12);
  expect(await differencesOf(service, merchant.merchantId)).toEqual([]);
});

describe('before the logs of a merchant are read', () => {
  const APPEND = 'FUNCTION audit_append(text, text, text, text, text, text, text)';
  const asked = async (merchant: MerchantPerson) =>
    (await auditOf(merchant)).filter(({ action }) => action === 'aws.asked');
  const setStatus = ({ merchantId }: MerchantPerson, status: string) =>
    withAdmin(service, (admin) =>
      admin.query('UPDATE merchants SET status = $2 WHERE id = $1', [merchantId, status]),
    );

  test('that is on record, once for all calls that are looked for; and where it cannot be, they are not read', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    await lose(merchant);
    await lose(merchant);
    await withAdmin(service, (admin) => admin.query(`REVOKE EXECUTE ON ${APPEND} FROM merchant_bedrock_app`));
    try {
      const rows = await reconcile(merchant);
      expect(rows.map(({ state }) => state)).toEqual(['unknown', 'unknown']);
    } finally {
      await withAdmin(service, (admin) => admin.query(`GRANT EXECUTE ON ${APPEND} TO merchant_bedrock_app`));
    }
    expect(reads()).toEqual([]);
    expect(await asked(merchant)).toEqual([]);
    expect((await reconcile(merchant)).map(({ provenance }) => provenance)).toEqual(['log', 'log']);
    expect(reads()).not.toEqual([]);
    expect(await asked(merchant)).toMatchObject([
      {
        actor: 'system',
        requestId: 'reconcile',
        resource: `credential/${merchant.credentialId}`,
        outcome: 'allowed',
        body: JSON.stringify({ about: 'logs', source: 'stored' }),
      },
    ]);
  });

  test('it is asked whether the merchant is active: what a process remembers of its credential is not used, and the work waits', async () => {
    const merchant = await newMerchant(CLOUD_WATCH);
    await lose(merchant);
    await setStatus(merchant, 'suspended');
    const [waiting] = await reconcile(merchant);
    expect(waiting).toMatchObject({ state: 'unknown', tries: 1 });
    expect(waiting?.waits).toBeGreaterThan(30);
    expect(reads()).toEqual([]);
    await setStatus(merchant, 'active');
    expect(await asked(merchant)).toEqual([]);
    const [found] = await reconcile(merchant);
    expect(found).toMatchObject({ state: 'settled', provenance: 'log' });
  });
});
