import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { AWS } from '../support/aws-keys.ts';
import { converseBody, MerchantPerson, onboard, operatorOf, runtimeCalls } from '../support/people.ts';
import type { Answer } from '../support/people.ts';
import { asIfItDied } from '../support/iam-users.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const ACCOUNT = AWS.merchantA.accountId;

let service: TestService;
let admin: pg.Client;
let merchants = 0;
let keys = 0;

beforeAll(async () => {
  service = await startTestService({
    ROTATION_MIN_INTERVAL_MS: '0',
    ROTATION_KEY_GRACE_MS: '0',
  });
  admin = new pg.Client({ connectionString: service.database.adminUrl });
  await admin.connect();
});
afterAll(async () => {
  await admin.end();
  await service[Symbol.asyncDispose]();
});
beforeEach(() => {
  service.standIn.forget();
});

/** A key pair that AWS knows. */
function newKey(accountId: string = ACCOUNT, more: { deny?: string[] } = {}) {
  keys += 1;
  const accessKeyId = `AKIAROTATED${String(keys).padStart(9, '0')}`;
  const key = { accessKeyId, secretAccessKey: `rotated/${String(keys)}/`.padEnd(40, 'y'), accountId };
  service.standIn.addAccessKey({ ...key, ...more });
  return key;
}

type Key = ReturnType<typeof newKey>;

function bodyOf({ accessKeyId, secretAccessKey }: Pick<Key, 'accessKeyId' | 'secretAccessKey'>) {
  return { kind: 'access-key', awsAccessKeyId: accessKeyId, awsSecretAccessKey: secretAccessKey };
}

async function newMerchant(): Promise<{ merchant: MerchantPerson; first: Key }> {
  merchants += 1;
  const first = newKey();
  const merchant = await onboard(service, `rotating-${String(merchants)}`, { awsKey: first });
  service.standIn.forget();
  return { merchant, first };
}

function rotate(
  merchant: MerchantPerson,
  key: Pick<Key, 'accessKeyId' | 'secretAccessKey'>,
): Promise<Answer> {
  return merchant.post(`/credentials/${merchant.credentialId}/rotate`, bodyOf(key));
}

function rollBack(merchant: MerchantPerson): Promise<Answer> {
  return merchant.send('POST', `/credentials/${merchant.credentialId}/rollback`);
}

async function rotated(merchant: MerchantPerson, key: Key): Promise<Answer['json']> {
  const answer = await rotate(merchant, key);
  expect({ status: answer.status, text: answer.text }).toMatchObject({ status: 200 });
  return answer.json;
}

function converse(merchant: MerchantPerson): Promise<Answer> {
  return merchant.post(`/model/${MODEL}/converse`, converseBody('hello'));
}

/** Access key ids of the calls that came to Bedrock, oldest first. */
const signers = () => runtimeCalls(service).map(({ accessKeyId }) => accessKeyId);

interface VersionRow {
  version: number;
  state: string;
  shredded: boolean;
}

async function versionsOf({ credentialId }: MerchantPerson): Promise<VersionRow[]> {
  const { rows } = await admin.query<VersionRow>(
    'SELECT version, state, wrapped_key IS NULL AS shredded FROM credential_versions WHERE credential_id = $1 ORDER BY version',
    [credentialId],
  );
  return rows;
}

async function rotationOf(merchant: MerchantPerson): Promise<Record<string, unknown>> {
  const answer = await merchant.get(`/credentials/${merchant.credentialId}/rotation`);
  expect(answer.status).toBe(200);
  return answer.json['rotation'] as Record<string, unknown>;
}

async function auditOf(merchant: MerchantPerson): Promise<string[]> {
  const { rows } = await admin.query<{ action: string }>(
    `SELECT action FROM audit_events WHERE merchant_id = $1 AND action LIKE 'credential.%' AND action <> 'credential.opened' ORDER BY seq`,
    [merchant.merchantId],
  );
  return rows.map(({ action }) => action.slice('credential.'.length));
}

/** Labels of the one secret of a credential, by the number of the version that bears them. */
async function labelsOf({ credentialId }: MerchantPerson): Promise<Record<string, number | undefined>> {
  const { rows } = await admin.query<{ version: number; id: string; secret: string }>(
    `SELECT version, secret_version_id AS id, secret_name AS secret FROM credential_rotations WHERE credential_id = $1
     UNION SELECT version, secret_version_id, secret_name FROM credential_versions WHERE credential_id = $1`,
    [credentialId],
  );
  expect(new Set(rows.map(({ secret }) => secret)).size).toBe(1);
  const stages = service.standIn.secretLabels(rows[0]?.secret ?? '');
  return Object.fromEntries(
    Object.entries(stages).map(([label, id]) => [label, rows.find((row) => row.id === id)?.version]),
  );
}

/** As if the time of the overlap were over. */
async function endOverlap({ credentialId }: MerchantPerson): Promise<void> {
  await admin.query(
    `UPDATE credential_versions SET overlap_until = clock_timestamp() WHERE credential_id = $1 AND state = 'previous'`,
    [credentialId],
  );
  await admin.query(
    `UPDATE credential_rotations SET overlap_until = clock_timestamp(), due_at = clock_timestamp() WHERE credential_id = $1 AND state = 'overlap'`,
    [credentialId],
  );
}

/** Meanwhile the service does at once what it does every second. */
async function untilRotated(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  await until(what, async () => {
    if (await isSo()) return true;
    await service.service.rotate();
    return false;
  });
}

async function retired(merchant: MerchantPerson): Promise<void> {
  await endOverlap(merchant);
  await untilRotated('the version before is retired and the labels are off', async () => {
    const { rows } = await admin.query(
      `SELECT 1 FROM credential_rotations WHERE credential_id = $1 AND (state = 'overlap' OR due_at IS NOT NULL)`,
      [merchant.credentialId],
    );
    return rows.length === 0;
  });
}

test('a rotation: sealed into the same secret, tested, in force; the one before overlaps and is shredded', async () => {
  const { merchant, first } = await newMerchant();
  expect((await converse(merchant)).status).toBe(200);
  const second = newKey();
  const json = await rotated(merchant, second);
  expect(json).toMatchObject({
    credential: { version: 2, accountId: ACCOUNT, keyHint: `AKIA…${second.accessKeyId.slice(-4)}` },
    rotation: { version: 2, replaces: 1, state: 'overlap', reason: null },
    warnings: [],
  });
  expect(JSON.stringify(json)).not.toContain(second.secretAccessKey);
  expect(await versionsOf(merchant)).toEqual([
    { version: 1, state: 'previous', shredded: false },
    { version: 2, state: 'current', shredded: false },
  ]);
  expect(await labelsOf(merchant)).toEqual({ AWSCURRENT: 2, AWSPREVIOUS: 1 });
  expect((await converse(merchant)).status).toBe(200);
  expect(signers()).toEqual([first.accessKeyId, second.accessKeyId]);

  await retired(merchant);
  expect(await versionsOf(merchant)).toEqual([
    { version: 1, state: 'destroyed', shredded: true },
    { version: 2, state: 'current', shredded: false },
  ]);
  expect(await labelsOf(merchant)).toEqual({ AWSCURRENT: 2 });
  expect(await rotationOf(merchant)).toMatchObject({ state: 'retired', endedAt: expect.any(String) });
  expect(await auditOf(merchant)).toEqual([
    'created',
    'made_default',
    'rotation_started',
    'rotated',
    'version_retired',
  ]);
  expect((await converse(merchant)).status).toBe(200);
});

test('the envelope of the new version is bound to its number, and written with the pending label and its own token', async () => {
  const { merchant } = await newMerchant();
  await rotated(merchant, newKey());
  const puts = service.standIn.journal.filter(({ operation }) => operation === 'PutSecretValue');
  const [put] = puts.map((entry) => JSON.parse(Buffer.from(entry.bodyBase64, 'base64').toString()) as object);
  const { rows } = await admin.query<{ id: string }>(
    'SELECT secret_version_id AS id FROM credential_versions WHERE credential_id = $1 AND version = 2',
    [merchant.credentialId],
  );
  expect(puts).toHaveLength(1);
  expect(put).toMatchObject({ ClientRequestToken: rows[0]?.id, VersionStages: ['AWSPENDING'] });
  const data = service.standIn.journal.filter(({ operation }) => operation === 'GenerateDataKey');
  const [asked] = data.map(
    (entry) => JSON.parse(Buffer.from(entry.bodyBase64, 'base64').toString()) as object,
  );
  expect(asked).toMatchObject({ EncryptionContext: { version: '2', credential_id: merchant.credentialId } });
});

describe('what is refused leaves the version before in force, and nothing of the new one', () => {
  const expectUntouched = async (merchant: MerchantPerson, first: Key) => {
    const versions = await versionsOf(merchant);
    expect(versions[0]).toEqual({ version: 1, state: 'current', shredded: false });
    expect(versions.slice(1).every(({ state, shredded }) => state === 'destroyed' && shredded)).toBe(true);
    expect((await converse(merchant)).status).toBe(200);
    expect(signers().at(-1)).toBe(first.accessKeyId);
  };

  test('a key that AWS does not know: nothing was written', async () => {
    const { merchant, first } = await newMerchant();
    const answer = await rotate(merchant, {
      accessKeyId: 'AKIANOBODYKNOWSTHIS0',
      secretAccessKey: 'n'.repeat(40),
    });
    expect(answer.status).toBe(422);
    expect(answer.json).toMatchObject({ code: 'credential.refused_by_aws' });
    expect(await rotationOf(merchant)).toBeNull();
    await expectUntouched(merchant, first);
  });

  test('a key that AWS stops to know between the question and the test: the pending version is shredded', async () => {
    const { merchant, first } = await newMerchant();
    const key = newKey();
    service.standIn.fault({ operation: 'PutSecretValue', delayMs: 1_500 });
    const answer = rotate(merchant, key);
    await until('the version is being written', () =>
      Promise.resolve(service.standIn.journal.some(({ operation }) => operation === 'PutSecretValue')),
    );
    service.standIn.addAccessKey({ ...key, state: 'deactivated' });
    expect((await answer).json).toMatchObject({ status: 422, code: 'credential.refused_by_aws' });
    expect(await rotationOf(merchant)).toMatchObject({
      state: 'failed',
      reason: 'credential.refused_by_aws',
    });
    expect(await versionsOf(merchant)).toHaveLength(2);
    expect(await auditOf(merchant)).toEqual([
      'created',
      'made_default',
      'rotation_started',
      'rotation_failed',
    ]);
    await untilRotated(
      'no label is left',
      async () => (await labelsOf(merchant))['AWSPENDING'] === undefined,
    );
    await expectUntouched(merchant, first);
  });

  test('another account: refused, unless an operator approves that very account, once', async () => {
    const { merchant, first } = await newMerchant();
    const other = newKey('300000000003');
    const approve = (accountId: string, cid = merchant.credentialId) =>
      operatorOf(service).post(
        `/api/ops/merchants/${merchant.merchantId}/credentials/${cid}/approve-account`,
        {
          accountId,
          reason: 'the merchant moves',
        },
      );
    const refused = await rotate(merchant, other);
    expect(refused.json).toMatchObject({
      status: 422,
      code: 'rotation.account_changed',
      accountId: '300000000003',
    });
    expect((await approve('400000000004')).status).toBe(204);
    expect((await rotate(merchant, other)).json).toMatchObject({ code: 'rotation.account_changed' });
    await expectUntouched(merchant, first);
    expect((await approve('300000000003', `cred_${'z'.repeat(22)}`)).status).toBe(404);
    expect((await approve('300000000003')).status).toBe(204);
    expect(await rotated(merchant, other)).toMatchObject({ credential: { accountId: '300000000003' } });
    expect((await converse(merchant)).headers.get('x-bedrock-credential-account')).toBe('300000000003');
    // The approval is used up.
    await retired(merchant);
    expect(await rotated(merchant, newKey('300000000003'))).toMatchObject({ warnings: [] });
    await retired(merchant);
    expect((await rotate(merchant, newKey())).json).toMatchObject({ code: 'rotation.account_changed' });
    expect((await auditOf(merchant)).filter((action) => action === 'account_approved')).toHaveLength(2);
  });

  test('the approval of another account ends with the next rotation, also with one that stays in the account', async () => {
    const { merchant } = await newMerchant();
    await operatorOf(service).post(
      `/api/ops/merchants/${merchant.merchantId}/credentials/${merchant.credentialId}/approve-account`,
      { accountId: '300000000003', reason: 'the next one' },
    );
    await rotated(merchant, newKey());
    await retired(merchant);
    expect((await rotate(merchant, newKey('300000000003'))).json).toMatchObject({
      code: 'rotation.account_changed',
    });
  });

  test('the account is checked again by the statement that promotes', async () => {
    const { merchant, first } = await newMerchant();
    const other = newKey('300000000003');
    await operatorOf(service).post(
      `/api/ops/merchants/${merchant.merchantId}/credentials/${merchant.credentialId}/approve-account`,
      { accountId: '300000000003', reason: 'for a moment' },
    );
    service.standIn.fault({ operation: 'PutSecretValue', delayMs: 1_500 });
    const answer = rotate(merchant, other);
    await until('the version is being written', () =>
      Promise.resolve(service.standIn.journal.some(({ operation }) => operation === 'PutSecretValue')),
    );
    await admin.query('UPDATE credentials SET approved_until = clock_timestamp() WHERE id = $1', [
      merchant.credentialId,
    ]);
    expect((await answer).json).toMatchObject({ code: 'rotation.account_changed' });
    await expectUntouched(merchant, first);
  });

  test('another kind, a body with a name in it, a credential that is not there', async () => {
    const { merchant, first } = await newMerchant();
    const at = `/credentials/${merchant.credentialId}/rotate`;
    const apiKey = { kind: 'bedrock-api-key', bedrockApiKey: `ABSK${'k'.repeat(40)}` };
    expect((await merchant.post(at, apiKey)).json).toMatchObject({
      status: 400,
      problems: ['kind must be access-key'],
    });
    expect((await merchant.post(at, { ...bodyOf(newKey()), name: 'x' })).status).toBe(400);
    const absent = `/credentials/cred_${'z'.repeat(22)}`;
    expect((await merchant.post(`${absent}/rotate`, bodyOf(newKey()))).status).toBe(404);
    expect((await merchant.send('POST', `${absent}/rollback`)).status).toBe(404);
    expect((await merchant.get(`${absent}/rotation`)).status).toBe(404);
    await expectUntouched(merchant, first);
  });

  test('Secrets Manager is down: nothing pending is left', async () => {
    const { merchant, first } = await newMerchant();
    const fault = service.standIn.fault({
      operation: 'PutSecretValue',
      status: 400,
      type: 'LimitExceededException',
      times: 'always',
    });
    expect((await rotate(merchant, newKey())).json).toMatchObject({ status: 503, code: 'vault.unavailable' });
    fault.remove();
    expect(await rotationOf(merchant)).toMatchObject({ state: 'failed', reason: 'vault.unavailable' });
    await expectUntouched(merchant, first);
    await rotated(merchant, newKey());
  });
});

test('one at a time: of many that begin at once, one does; then the overlap is in the way until it is over', async () => {
  const { merchant } = await newMerchant();
  const answers = await Promise.all(Array.from({ length: 6 }, () => rotate(merchant, newKey())));
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
  for (const { json, headers } of answers.filter(({ status }) => status !== 200)) {
    expect(json).toMatchObject({ status: 409, code: 'rotation.in_progress', version: 2 });
    expect(Number(headers.get('retry-after'))).toBeGreaterThan(0);
  }
  const during = await rotate(merchant, newKey());
  expect(during.json).toMatchObject({ code: 'rotation.in_progress', state: 'overlap' });
  await endOverlap(merchant);
  // Not even the worker has to have been there.
  expect(await rotated(merchant, newKey())).toMatchObject({ rotation: { version: 3, replaces: 2 } });
  expect((await versionsOf(merchant)).map(({ state }) => state)).toEqual([
    'destroyed',
    'previous',
    'current',
  ]);
});

test('a new key that may less is told of', async () => {
  const { merchant } = await newMerchant();
  const narrow = newKey(ACCOUNT, {
    deny: ['bedrock:ListInferenceProfiles', 'bedrock:GetFoundationModelAvailability'],
  });
  const { warnings, rotation } = await rotated(merchant, narrow);
  expect(warnings).toEqual([
    expect.stringContaining('bedrock:ListInferenceProfiles'),
    expect.stringContaining('bedrock:GetFoundationModelAvailability'),
  ]);
  expect((rotation as { warnings: unknown }).warnings).toEqual(warnings);
  expect((await rotationOf(merchant))['warnings']).toEqual(warnings);
  await retired(merchant);
  expect((await rotated(merchant, newKey()))['warnings']).toEqual([]);
});

describe('rolling back', () => {
  test('within the overlap: the version before is current, the newer one is destroyed at once', async () => {
    const { merchant, first } = await newMerchant();
    const second = newKey();
    await rotated(merchant, second);
    await converse(merchant);
    const answer = await rollBack(merchant);
    expect(answer.json).toMatchObject({
      credential: { version: 1, keyHint: `AKIA…${first.accessKeyId.slice(-4)}` },
      rotation: { version: 2, replaces: 1, state: 'rolled-back' },
    });
    expect(await versionsOf(merchant)).toEqual([
      { version: 1, state: 'current', shredded: false },
      { version: 2, state: 'destroyed', shredded: true },
    ]);
    expect(await labelsOf(merchant)).toEqual({ AWSCURRENT: 1 });
    expect((await converse(merchant)).status).toBe(200);
    expect(signers()).toEqual([second.accessKeyId, first.accessKeyId]);
    expect((await rollBack(merchant)).json).toMatchObject({ status: 409, code: 'rotation.not_reversible' });
    expect((await auditOf(merchant)).at(-1)).toBe('rolled_back');
    expect(await rotated(merchant, newKey())).toMatchObject({ rotation: { version: 3, replaces: 1 } });
  });

  test('not before a rotation, and not after the overlap', async () => {
    const { merchant } = await newMerchant();
    expect((await rollBack(merchant)).json).toMatchObject({ code: 'rotation.not_reversible' });
    await rotated(merchant, newKey());
    await admin.query(
      `UPDATE credential_rotations SET overlap_until = clock_timestamp(), due_at = clock_timestamp() + interval '1 hour' WHERE credential_id = $1`,
      [merchant.credentialId],
    );
    expect((await rollBack(merchant)).json).toMatchObject({ status: 409, code: 'rotation.not_reversible' });
    expect((await versionsOf(merchant)).map(({ state }) => state)).toEqual(['previous', 'current']);
  });
});

describe('calls while two versions are live', () => {
  const states = async ({ merchantId }: MerchantPerson) => {
    const { rows } = await admin.query<{ state: string; version: number; reason: string | null }>(
      'SELECT state, credential_version AS version, reason FROM calls WHERE merchant_id = $1 ORDER BY id',
      [merchantId],
    );
    return rows.map(({ state, version }) => `${state} ${String(version)}`);
  };

  test.each(['converse', 'converse-stream'])(
    '%s: a new key that AWS does not know yet: the one before signs',
    async (operation) => {
      const { merchant, first } = await newMerchant();
      const second = newKey();
      await rotated(merchant, second);
      service.standIn.fault({
        service: 'bedrock-runtime',
        accessKeyId: second.accessKeyId,
        status: 403,
        type: 'UnrecognizedClientException',
      });
      const answer = await merchant.post(`/model/${MODEL}/${operation}`, converseBody('hello'));
      expect(answer.status).toBe(200);
      expect(signers()).toEqual([second.accessKeyId, first.accessKeyId]);
      expect(await states(merchant)).toEqual(['void 2', 'settled 1']);
    },
  );

  test('a version before that is gone at AWS, in a process that remembers it: the current one signs', async () => {
    const { merchant, first } = await newMerchant();
    const second = newKey();
    await converse(merchant);
    await rotated(merchant, second);
    // What another replica would remember, had it not been told yet.
    await admin.query(
      `UPDATE credential_rotations SET changed_at = changed_at - interval '1 hour' WHERE credential_id = $1`,
      [merchant.credentialId],
    );
    const { services } = service.service;
    service.standIn.addAccessKey({ ...first, state: 'deactivated' });
    await admin.query('UPDATE credentials SET current_version = 1 WHERE id = $1', [merchant.credentialId]);
    services.vault.forgetCurrent(merchant.merchantId as never, merchant.credentialId as never);
    expect((await converse(merchant)).status).toBe(200);
    await admin.query('UPDATE credentials SET current_version = 2 WHERE id = $1', [merchant.credentialId]);
    expect(signers().slice(-2)).toEqual([first.accessKeyId, second.accessKeyId]);
    expect(await states(merchant)).toEqual(['settled 1', 'void 1', 'settled 2']);
  });

  test('once, and with no other credential: two refusals are the answer, and without an overlap one is', async () => {
    const { merchant, first } = await newMerchant();
    const second = newKey();
    await rotated(merchant, second);
    service.standIn.addAccessKey({ ...first, state: 'deactivated' });
    service.standIn.addAccessKey({ ...second, state: 'deactivated' });
    const answer = await converse(merchant);
    expect(answer.status).toBe(403);
    expect(answer.headers.get('x-bedrock-error-code')).toBe('credential.refused_by_aws');
    expect(signers()).toEqual([second.accessKeyId, first.accessKeyId]);
    await retired(merchant);
    expect((await converse(merchant)).status).toBe(403);
    expect(signers()).toEqual([second.accessKeyId, first.accessKeyId, second.accessKeyId]);
    expect(await states(merchant)).toEqual(['void 2', 'void 1', 'void 2']);
  });

  test.each([
    { status: 403, type: 'AccessDeniedException' },
    { status: 400, type: 'ValidationException' },
    { status: 500, type: 'InternalServerException' },
  ])('any other refusal is passed on and never tried again: $type', async (fault) => {
    const { merchant } = await newMerchant();
    const second = newKey();
    await rotated(merchant, second);
    service.standIn.fault({ service: 'bedrock-runtime', ...fault });
    expect((await converse(merchant)).status).toBe(fault.status);
    expect(signers()).toEqual([second.accessKeyId]);
  });

  test('a process that remembers the version before goes on with it in the overlap, and not a moment longer', async () => {
    const { merchant } = await newMerchant();
    const second = newKey();
    await rotated(merchant, second);
    expect(await holdWith(merchant, 1)).toBe('admitted');
    expect(await holdWith(merchant, 2)).toBe('admitted');
    await endOverlap(merchant);
    expect(await holdWith(merchant, 1)).toBe('credential');
    expect(await holdWith(merchant, 2)).toBe('admitted');
  });

  test('a pending version signs nothing, whatever a process believes', async () => {
    const { merchant } = await newMerchant();
    const key = newKey();
    // One of the questions of the test.
    service.standIn.fault({
      operation: 'ListInferenceProfiles',
      accessKeyId: key.accessKeyId,
      delayMs: 1_500,
    });
    const answer = rotate(merchant, key);
    await until('it is pending', async () => (await versionsOf(merchant)).length === 2);
    expect(await holdWith(merchant, 2)).toBe('credential');
    expect((await answer).status).toBe(200);
    expect(await holdWith(merchant, 2)).toBe('admitted');
  });
});

/** What admission says to a call that is to be signed by this version. The call is void afterwards. */
async function holdWith({ merchantId, credentialId }: MerchantPerson, version: number): Promise<string> {
  await admin.query('BEGIN');
  try {
    const call = {
      merchant_id: merchantId,
      pos: 1,
      merchant_revision: 1,
      operation: 'converse',
      model_id: MODEL,
      region: 'us-east-1',
      source: 'stored',
      credential_id: credentialId,
      credential_version: version,
      subject: 'x',
      request_id: 'x',
      deadline_seconds: 60,
      input_tokens: 1,
      output_tokens: 1,
      output_tokens_most: 1,
      clampable: false,
      tier: 'standard',
    };
    const { rows } = await admin.query<{ held: { answers: { verdict: string }[] } }>(
      'SELECT ledger_hold(gen_random_uuid(), jsonb_set($1::jsonb, $2, (SELECT to_jsonb(revision) FROM merchants WHERE id = $3))) AS held',
      [JSON.stringify([call]), ['0', 'merchant_revision'], merchantId],
    );
    return rows[0]?.held.answers[0]?.verdict ?? 'nothing';
  } finally {
    await admin.query('ROLLBACK');
  }
}

describe('what a process that died has left is gone on with', () => {
  /** A rotation that stands where a dead process left it, and is due. */
  async function leftAt(merchant: MerchantPerson, sql: string): Promise<void> {
    await admin.query(`SELECT set_config('app.merchant_id', $1, false)`, [merchant.merchantId]);
    await admin.query(sql, [merchant.credentialId]);
  }
  const ended = (merchant: MerchantPerson, state: string) =>
    untilRotated(`the rotation is ${state}`, async () => (await rotationOf(merchant))['state'] === state);

  test('begun and not sealed: given up', async () => {
    const { merchant } = await newMerchant();
    await leftAt(
      merchant,
      `INSERT INTO credential_rotations (merchant_id, credential_id, version, replaces, state, mode, secret_name, secret_version_id, started_by, started_at, changed_at, due_at)
       SELECT merchant_id, credential_id, 2, 1, 'pending', 'material', secret_name, gen_random_uuid(), 'x', clock_timestamp(), clock_timestamp(), clock_timestamp()
       FROM credential_versions WHERE credential_id = $1`,
    );
    await ended(merchant, 'failed');
    expect(await rotationOf(merchant)).toMatchObject({ reason: 'interrupted' });
    expect((await converse(merchant)).status).toBe(200);
  });

  test('sealed and not tested: tested again and promoted; the labels follow', async () => {
    const { merchant } = await newMerchant();
    const second = newKey();
    await pendingLeft(merchant, second);
    await admin.query('UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1', [
      merchant.credentialId,
    ]);
    await ended(merchant, 'overlap');
    await untilRotated('the labels are moved', async () => (await labelsOf(merchant))['AWSCURRENT'] === 2);
    expect((await converse(merchant)).status).toBe(200);
    expect(signers().at(-1)).toBe(second.accessKeyId);
  });

  test('sealed, and AWS refuses it for good: given up at once', async () => {
    const { merchant } = await newMerchant();
    const second = newKey();
    await pendingLeft(merchant, second);
    service.standIn.addAccessKey({ ...second, state: 'deactivated' });
    await admin.query('UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1', [
      merchant.credentialId,
    ]);
    await ended(merchant, 'failed');
    expect(await rotationOf(merchant)).toMatchObject({ reason: 'credential.refused_by_aws' });
    expect((await versionsOf(merchant))[1]).toEqual({ version: 2, state: 'destroyed', shredded: true });
  });

  test('sealed, and AWS does not answer: tried again, and given up after the limit', async () => {
    const { merchant } = await newMerchant();
    await pendingLeft(merchant, newKey());
    const fault = service.standIn.fault({
      service: 'sts',
      status: 500,
      type: 'InternalFailure',
      times: 'always',
    });
    await admin.query('UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1', [
      merchant.credentialId,
    ]);
    await untilRotated('it was tried', () => Promise.resolve(fault.hits() > 1));
    expect(await rotationOf(merchant)).toMatchObject({ state: 'pending' });
    await admin.query(
      `UPDATE credential_rotations SET started_at = started_at - interval '1 hour', due_at = clock_timestamp() WHERE credential_id = $1`,
      [merchant.credentialId],
    );
    await ended(merchant, 'failed');
    fault.remove();
    expect(await rotationOf(merchant)).toMatchObject({ reason: 'timed-out' });
  });

  test('in force, and the labels not moved: moved; it takes a second try where AWS does not answer', async () => {
    const { merchant } = await newMerchant();
    const fault = service.standIn.fault({
      operation: 'UpdateSecretVersionStage',
      status: 400,
      type: 'InvalidParameterException',
      times: 'always',
    });
    await rotated(merchant, newKey());
    expect(await labelsOf(merchant)).toEqual({ AWSCURRENT: 1, AWSPENDING: 2 });
    fault.remove();
    await admin.query('UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1', [
      merchant.credentialId,
    ]);
    await untilRotated('the labels are moved', async () => {
      const labels = await labelsOf(merchant);
      return labels['AWSPREVIOUS'] === 1 && labels['AWSPENDING'] === undefined;
    });
    expect(await labelsOf(merchant)).toEqual({ AWSCURRENT: 2, AWSPREVIOUS: 1 });
    await untilRotated('that is written down', async () => {
      const { rows } = await admin.query<{ labelled: string }>(
        'SELECT labelled FROM credential_rotations WHERE credential_id = $1',
        [merchant.credentialId],
      );
      return rows[0]?.labelled === 'overlap';
    });
  });

  test('a credential that is deleted meanwhile: the rotation ends, and nothing is left that opens', async () => {
    const { merchant } = await newMerchant();
    await pendingLeft(merchant, newKey());
    await merchant.send('DELETE', `/credentials/${merchant.credentialId}`);
    await admin.query('UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1', [
      merchant.credentialId,
    ]);
    await untilRotated('it is given up', async () => {
      const { rows } = await admin.query(
        `SELECT 1 FROM credential_rotations WHERE credential_id = $1 AND state = 'failed' AND due_at IS NULL`,
        [merchant.credentialId],
      );
      return rows.length === 1;
    });
    expect(
      (await versionsOf(merchant)).every(({ state, shredded }) => state === 'destroyed' && shredded),
    ).toBe(true);
  });

  test('of a merchant that is suspended: the new version is not opened, is not given up for it, and goes on when the merchant is active', async () => {
    const { merchant } = await newMerchant();
    const { merchantId, credentialId } = merchant;
    await pendingLeft(merchant, newKey());
    const setStatus = (status: string) =>
      admin.query('UPDATE merchants SET status = $2 WHERE id = $1', [merchantId, status]);
    const due = () =>
      admin.query(
        `UPDATE credential_rotations SET started_at = started_at - interval '1 hour', due_at = clock_timestamp() WHERE credential_id = $1`,
        [credentialId],
      );
    await setStatus('suspended');
    service.standIn.forget();
    await due();
    const told = () => service.logLines.filter((line) => line.includes(credentialId));
    await untilRotated('somebody looked at it', () =>
      Promise.resolve(told().some((line) => /merchant\.not_active|rotation resumed/.test(line))),
    );
    expect((await versionsOf(merchant))[1]).toMatchObject({ state: 'pending', shredded: false });
    expect(service.standIn.journal).toEqual([]);
    await setStatus('active');
    await due();
    await untilRotated('it is in force', async () => (await versionsOf(merchant))[1]?.state === 'current');
  });

  /** A pending version whose process died before it was tested. */
  async function pendingLeft(merchant: MerchantPerson, key: Key): Promise<void> {
    const answer = await asIfItDied(admin, () => rotate(merchant, key));
    expect(answer.status).toBeGreaterThanOrEqual(500);
    expect((await versionsOf(merchant))[1]).toEqual({ version: 2, state: 'pending', shredded: false });
  }
});

test('a second process is told: it uses the new version, and forgets the one that was shredded', async () => {
  await using other = await startTestService({ ...service.env }, service.database);
  // Both see the same AWS.
  expect(other.standIn.url).not.toBe(service.standIn.url);
  const { merchant } = await newMerchant();
  const { services } = other.service;
  const ids = [merchant.merchantId, merchant.credentialId] as never[];
  const [merchantId, credentialId] = ids as [never, never];
  expect(await services.vault.current(merchantId, credentialId, false)).toMatchObject({ version: 1 });
  await rotated(merchant, newKey());
  await untilRotated(
    'it has been told',
    async () => (await services.vault.current(merchantId, credentialId, false)).version === 2,
  );
});

test('too soon after the last one: 429 with the time to wait; one that was rolled back does not count', async () => {
  await using strict = await startTestService(
    { ...service.env, ROTATION_MIN_INTERVAL_MS: '900000', ENDPOINT_STS: service.standIn.url },
    service.database,
  );
  const { merchant } = await newMerchant();
  await rotated(merchant, newKey());
  await rollBack(merchant);
  await rotated(merchant, newKey());
  await retired(merchant);
  const person = new MerchantPerson(strict.url, {
    merchantId: merchant.merchantId,
    token: merchant.token ?? '',
    credentialId: merchant.credentialId,
    apiKeyId: merchant.apiKeyId,
  });
  const answer = await rotate(person, newKey());
  expect(answer.json).toMatchObject({ status: 429, code: 'rotation.too_soon' });
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(600);
});

describe('with a new key made at IAM', () => {
  const atIam = (merchant: MerchantPerson) =>
    merchant.post(`/credentials/${merchant.credentialId}/rotate`, { mode: 'iam' });
  /** Keys of the user at AWS, by whether they are active. */
  const keysAtIam = (arn: string) =>
    service.standIn.accessKeysOf(arn).map(({ accessKeyId, state = 'active' }) => [accessKeyId, state]);

  async function newUser(): Promise<{ merchant: MerchantPerson; first: Key; arn: string }> {
    const { merchant, first } = await newMerchant();
    const arn = `arn:aws:iam::${ACCOUNT}:user/${merchant.merchantId}`;
    service.standIn.addAccessKey({ ...first, arn });
    return { merchant, first, arn };
  }

  const cleaned = (merchant: MerchantPerson) =>
    untilRotated('nothing is left to do', async () => {
      const { rows } = await admin.query(
        `SELECT 1 FROM credential_rotations WHERE credential_id = $1 AND due_at IS NOT NULL`,
        [merchant.credentialId],
      );
      return rows.length === 0;
    });

  test('made with the current key, tested until AWS knows it; the old one is deactivated after the overlap, then deleted', async () => {
    const { merchant, first, arn } = await newUser();
    service.standIn.setNewKeyDelay(700);
    const answer = await atIam(merchant);
    service.standIn.setNewKeyDelay(0);
    expect({ status: answer.status, text: answer.text }).toMatchObject({ status: 200 });
    expect(service.standIn.journal.find(({ operation }) => operation === 'CreateAccessKey')).toMatchObject({
      accessKeyId: first.accessKeyId,
    });
    const made = keysAtIam(arn).map(([id]) => id);
    expect(made).toHaveLength(2);
    expect((await converse(merchant)).status).toBe(200);
    expect(signers().at(-1)).toBe(made.find((id) => id !== first.accessKeyId));
    await endOverlap(merchant);
    await cleaned(merchant);
    expect(keysAtIam(arn)).toEqual([[made.find((id) => id !== first.accessKeyId), 'active']]);
    expect((await auditOf(merchant)).slice(-3)).toEqual([
      'version_retired',
      'key_deactivated',
      'key_deleted',
    ]);
    expect((await atIam(merchant)).status).toBe(200);
  });

  test('a second key that is not ours is in the way: none is made, and it stays', async () => {
    const { merchant, arn } = await newUser();
    service.standIn.addAccessKey({ ...newKey(), arn });
    expect((await atIam(merchant)).json).toMatchObject({ status: 422, refusal: 'key-limit' });
    expect(await rotationOf(merchant)).toMatchObject({
      state: 'failed',
      reason: 'credential.refused_by_aws',
    });
    await cleaned(merchant);
    expect(keysAtIam(arn).map(([, state]) => state)).toEqual(['active', 'active']);
  });

  test('rolled back: the new key is the one that goes', async () => {
    const { merchant, first, arn } = await newUser();
    expect((await atIam(merchant)).status).toBe(200);
    expect((await rollBack(merchant)).status).toBe(200);
    await cleaned(merchant);
    expect(keysAtIam(arn)).toEqual([[first.accessKeyId, 'active']]);
  });

  test('a key that was made and not kept, because the vault was away: found by its age, and deleted', async () => {
    const { merchant, first, arn } = await newUser();
    const fault = service.standIn.fault({
      operation: 'PutSecretValue',
      status: 400,
      type: 'LimitExceededException',
      times: 'always',
    });
    expect((await atIam(merchant)).json).toMatchObject({ code: 'vault.unavailable' });
    fault.remove();
    expect(keysAtIam(arn)).toHaveLength(2);
    await cleaned(merchant);
    expect(keysAtIam(arn)).toEqual([[first.accessKeyId, 'active']]);
  });

  test('a key that may not make others, and a kind that has none', async () => {
    const { merchant, first, arn } = await newUser();
    service.standIn.addAccessKey({ ...first, arn, deny: ['iam:*'] });
    expect((await atIam(merchant)).json).toMatchObject({ status: 422, refusal: 'not-permitted' });
    const apiKey = {
      kind: 'bedrock-api-key',
      name: 'x',
      region: 'us-east-1',
      bedrockApiKey: `ABSK${'q'.repeat(40)}`,
    };
    service.standIn.addBedrockApiKey({ apiKey: apiKey.bedrockApiKey, accountId: ACCOUNT });
    const { json } = await merchant.post('/credentials', apiKey);
    expect(
      (await merchant.post(`/credentials/${String(json['id'])}/rotate`, { mode: 'iam' })).json,
    ).toMatchObject({
      code: 'request.invalid',
    });
  });
});
