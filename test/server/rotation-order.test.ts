import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { IamUsers } from '../support/iam-users.ts';
import type { IamKey, IamUser } from '../support/iam-users.ts';
import { converseBody, MerchantPerson } from '../support/people.ts';
import type { Answer } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';
import { until } from '../support/until.ts';

// In which order a rotation does what it does, and that it takes no key at IAM for its own that is not.

const MODEL = 'anthropic.claude-3-5-haiku-20241022-v1:0';

let service: TestService;
let admin: pg.Client;
const users = new IamUsers(() => service);

beforeAll(async () => {
  service = await startTestService({ ROTATION_MIN_INTERVAL_MS: '0' });
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

function bodyOf({ accessKeyId, secretAccessKey }: IamKey) {
  return { kind: 'access-key', awsAccessKeyId: accessKeyId, awsSecretAccessKey: secretAccessKey };
}

const at = ({ credentialId }: MerchantPerson, what: string) => `/credentials/${credentialId}/${what}`;
const atIam = (merchant: MerchantPerson): Promise<Answer> =>
  merchant.post(at(merchant, 'rotate'), { mode: 'iam' });
const rotate = (merchant: MerchantPerson, key: IamKey): Promise<Answer> =>
  merchant.post(at(merchant, 'rotate'), bodyOf(key));

/** Keys of the user at AWS, by whether they are active. */
const keysAtIam = (arn: string) =>
  Object.fromEntries(
    service.standIn.accessKeysOf(arn).map(({ accessKeyId, state = 'active' }) => [accessKeyId, state]),
  );
const asksOfIam = () => service.standIn.journal.filter(({ service: name }) => name === 'iam');

interface Row {
  state: string;
  key_state: string | null;
  labelled: string | null;
  tries: number;
  settled: boolean;
  due_in: number | null;
}

/** The latest rotation, as the database has it. */
async function rowOf({ credentialId }: MerchantPerson): Promise<Row> {
  const { rows } = await admin.query<Row>(
    `SELECT state, key_state, labelled, tries, due_at IS NULL AS settled, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in
     FROM credential_rotations WHERE credential_id = $1 ORDER BY version DESC LIMIT 1`,
    [credentialId],
  );
  return rows[0] as Row;
}

const set = (merchant: MerchantPerson, what: string) =>
  admin.query(`UPDATE credential_rotations SET ${what} WHERE credential_id = $1 AND due_at IS NOT NULL`, [
    merchant.credentialId,
  ]);
const dueNow = (merchant: MerchantPerson) =>
  set(
    merchant,
    'due_at = clock_timestamp(), key_due_at = CASE WHEN key_due_at IS NOT NULL THEN clock_timestamp() END',
  );

async function endOverlap(merchant: MerchantPerson): Promise<void> {
  await admin.query(
    `UPDATE credential_versions SET overlap_until = clock_timestamp() WHERE credential_id = $1 AND state = 'previous'`,
    [merchant.credentialId],
  );
  await admin.query(
    `UPDATE credential_rotations SET overlap_until = clock_timestamp(), due_at = clock_timestamp() WHERE credential_id = $1 AND state = 'overlap'`,
    [merchant.credentialId],
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

const settled = (merchant: MerchantPerson) =>
  untilRotated('nothing is left to do', async () => (await rowOf(merchant)).settled);
const deactivated = (merchant: MerchantPerson) =>
  untilRotated('a key is deactivated', async () => (await rowOf(merchant)).key_state === 'deactivated');

/** A rotation at IAM whose answer got lost. Nothing was cleaned yet: IAM lists nothing until the returned function is called. */
async function lostAtIam({ merchant, arn }: IamUser): Promise<() => Promise<void>> {
  const create = service.standIn.fault({ operation: 'CreateAccessKey', delayMs: 1_500, reset: true });
  const answer = atIam(merchant);
  await until('a key is asked for', () => create.hits() > 0);
  const list = service.standIn.fault({
    operation: 'ListAccessKeys',
    status: 500,
    type: 'ServiceFailure',
    times: 'always',
  });
  expect((await answer).json).toMatchObject({ code: 'upstream.unreachable', mayHaveHappened: true });
  expect(Object.keys(keysAtIam(arn))).toHaveLength(1);
  return async () => {
    list.remove();
    await dueNow(merchant);
  };
}

/** The worker looked, and found that it has to look again. */
async function lookedInVain(merchant: MerchantPerson): Promise<void> {
  const seen = () => service.logLines.filter((line) => line.includes('rotation.in_progress')).length;
  const before = seen();
  await dueNow(merchant);
  await untilRotated('it was looked at', () => seen() > before);
  expect(await rowOf(merchant)).toMatchObject({ key_state: null, settled: false });
}

async function auditOf({ merchantId }: MerchantPerson): Promise<string[]> {
  const { rows } = await admin.query<{ action: string }>(
    `SELECT action FROM audit_events WHERE merchant_id = $1 AND action LIKE 'credential.key%' ORDER BY seq`,
    [merchantId],
  );
  return rows.map(({ action }) => action);
}

describe('whose key it is', () => {
  test('one that IAM lists late is found, by when it was asked for', async () => {
    const user = await users.newUser();
    const goOn = await lostAtIam(user);
    await goOn();
    await lookedInVain(user.merchant);
    const orphan = users.newKey(user.arn);
    await dueNow(user.merchant);
    await deactivated(user.merchant);
    await dueNow(user.merchant);
    await settled(user.merchant);
    expect(keysAtIam(user.arn)).toEqual({ [user.first.accessKeyId]: 'active' });
    expect(await auditOf(user.merchant)).toEqual(['credential.key_deactivated', 'credential.key_deleted']);
    expect(orphan.accessKeyId).not.toBe(user.first.accessKeyId);
  });

  test.each([
    ['before', -120_000],
    ['after', 30_000],
  ])('one that was made well %s that is not ours', async (_when, offsetMs) => {
    const user = await users.newUser();
    const goOn = await lostAtIam(user);
    const foreign = users.newKey(user.arn, { createdAtMs: Date.now() + offsetMs });
    await goOn();
    await lookedInVain(user.merchant);
    await set(user.merchant, `ended_at = ended_at - interval '6 minutes', due_at = clock_timestamp()`);
    await settled(user.merchant);
    expect(await rowOf(user.merchant)).toMatchObject({ key_state: 'none' });
    expect(keysAtIam(user.arn)[foreign.accessKeyId]).toBe('active');
  });

  test('the key of the next rotation is not taken for that of one that failed, and while that is tested nothing is done', async () => {
    const user = await users.newUser();
    const goOn = await lostAtIam(user);
    // Tested for as long as the fault stays.
    const list = service.standIn.fault({ operation: 'PutSecretValue', delayMs: 2_000 });
    await goOn();
    await lookedInVain(user.merchant);
    const next = atIam(user.merchant);
    await until('the next one is sealed', () => list.hits() > 0);
    await admin.query(
      `UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1 AND state = 'failed'`,
      [user.merchant.credentialId],
    );
    await service.service.rotate();
    expect(Object.values(keysAtIam(user.arn))).toEqual(['active', 'active']);
    expect((await next).status).toBe(200);
    await admin.query(
      `UPDATE credential_rotations SET due_at = clock_timestamp(), ended_at = ended_at - interval '6 minutes' WHERE credential_id = $1 AND state = 'failed'`,
      [user.merchant.credentialId],
    );
    await untilRotated('the one that failed is settled', async () => {
      const { rows } = await admin.query(
        `SELECT 1 FROM credential_rotations WHERE credential_id = $1 AND state = 'failed' AND key_state = 'none'`,
        [user.merchant.credentialId],
      );
      return rows.length === 1;
    });
    expect(Object.values(keysAtIam(user.arn))).toEqual(['active', 'active']);
  });

  test('where IAM refused to make one there is nothing to look for', async () => {
    const { merchant } = await users.newUser();
    service.standIn.fault({ operation: 'CreateAccessKey', status: 400, type: 'Throttling' });
    expect((await atIam(merchant)).json).toMatchObject({ code: 'upstream.throttled' });
    expect(await rowOf(merchant)).toMatchObject({ state: 'failed', key_state: 'none' });
  });

  test('one that is known by its name is cleaned by its name, whenever it was made', async () => {
    const { merchant, first, arn } = await users.newUser();
    const fault = service.standIn.fault({
      operation: 'PutSecretValue',
      status: 400,
      type: 'LimitExceededException',
      times: 'always',
    });
    const deactivate = service.standIn.fault({
      operation: 'UpdateAccessKey',
      status: 500,
      type: 'ServiceFailure',
      times: 'always',
    });
    expect((await atIam(merchant)).json).toMatchObject({ code: 'vault.unavailable' });
    fault.remove();
    await set(merchant, `key_asked_at = key_asked_at - interval '1 hour'`);
    deactivate.remove();
    await dueNow(merchant);
    await deactivated(merchant);
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('active');
    expect(Object.values(keysAtIam(arn)).sort()).toEqual(['active', 'deactivated']);
  });

  test('one IAM user, two credentials: no key is made', async () => {
    const { merchant, arn } = await users.newUser();
    const second = users.newKey(arn);
    const stored = await merchant.post('/credentials', { ...bodyOf(second), name: 'x', region: 'us-east-1' });
    expect(stored.status).toBe(201);
    expect((await atIam(merchant)).json).toMatchObject({ status: 400, code: 'request.invalid' });
    expect(await rowOf(merchant)).toBeUndefined();
    await merchant.send('DELETE', `/credentials/${String(stored.json['id'])}`);
    expect((await atIam(merchant)).json).toMatchObject({ refusal: 'key-limit' });
  });
});

describe('a key that was deactivated', () => {
  async function leftOver(): Promise<IamUser> {
    const user = await users.newUser();
    expect((await atIam(user.merchant)).status).toBe(200);
    await endOverlap(user.merchant);
    await deactivated(user.merchant);
    expect(keysAtIam(user.arn)[user.first.accessKeyId]).toBe('deactivated');
    return user;
  }

  test('stays when its owner activates it again', async () => {
    const { merchant, first, arn } = await leftOver();
    service.standIn.addAccessKey({ ...first, state: 'active' });
    await dueNow(merchant);
    await settled(merchant);
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('active');
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'none' });
  });

  test('is recorded as deleted also where that could not be written at once', async () => {
    const { merchant, first, arn } = await leftOver();
    const fault = service.standIn.fault({
      operation: 'DeleteAccessKey',
      status: 500,
      type: 'ServiceFailure',
      executed: true,
      times: 'always',
    });
    await dueNow(merchant);
    await untilRotated('it is gone', () => keysAtIam(arn)[first.accessKeyId] === undefined);
    await service.service.rotate();
    fault.remove();
    await dueNow(merchant);
    await settled(merchant);
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'deleted' });
    expect(await auditOf(merchant)).toEqual(['credential.key_deactivated', 'credential.key_deleted']);
  });

  test('keeps its grace when the next rotation is too soon', async () => {
    const { merchant, first, arn } = await leftOver();
    await using strict = await startTestService(
      { ...service.env, ROTATION_MIN_INTERVAL_MS: '900000' },
      service.database,
    );
    const person = new MerchantPerson(strict.url, {
      merchantId: merchant.merchantId,
      token: merchant.token ?? '',
      credentialId: merchant.credentialId,
      apiKeyId: merchant.apiKeyId,
    });
    expect((await atIam(person)).json).toMatchObject({ status: 429, code: 'rotation.too_soon' });
    expect(strict.standIn.journal).toEqual([]);
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('deactivated');
  });

  test('makes room for the next', async () => {
    const { merchant, first, arn } = await leftOver();
    expect((await atIam(merchant)).status).toBe(200);
    expect(keysAtIam(arn)[first.accessKeyId]).toBeUndefined();
  });
});

test('in its overlap a rotation is in progress, and no key is called one too many', async () => {
  const { merchant } = await users.newUser();
  expect((await atIam(merchant)).status).toBe(200);
  expect((await atIam(merchant)).json).toMatchObject({
    status: 409,
    code: 'rotation.in_progress',
    state: 'overlap',
  });
});

test('a credential that was frozen signs nothing at IAM, whatever a process remembers', async () => {
  const { merchant } = await users.newUser();
  expect((await merchant.post(`/model/${MODEL}/converse`, converseBody('hello'))).status).toBe(200);
  await admin.query(`UPDATE credentials SET state = 'frozen' WHERE id = $1`, [merchant.credentialId]);
  service.standIn.forget();
  expect((await atIam(merchant)).json).toMatchObject({ status: 409, code: 'credential.not_usable' });
  expect(asksOfIam()).toEqual([]);
});

describe('before IAM is asked anything', () => {
  const APPEND = 'FUNCTION audit_append(text, text, text, text, text, text, text)';
  const setStatus = ({ merchantId }: MerchantPerson, status: string) =>
    admin.query('UPDATE merchants SET status = $2 WHERE id = $1', [merchantId, status]);
  const freeze = ({ credentialId }: MerchantPerson, state: string) =>
    admin.query('UPDATE credentials SET state = $2 WHERE id = $1', [credentialId, state]);
  const trail = async ({ merchantId }: MerchantPerson) => {
    const { rows } = await admin.query<{ said: string }>(
      `SELECT concat_ws(' ', action, body::jsonb->>'about', CASE actor WHEN 'system' THEN actor END) AS said FROM audit_events
       WHERE merchant_id = $1 AND (body::jsonb->>'about' = 'keys' OR action LIKE 'credential.key%') ORDER BY seq`,
      [merchantId],
    );
    return rows.map(({ said }) => said);
  };
  /** The key that is left over is due, and the worker tried: its round is over when this returns. */
  async function triedInVain(merchant: MerchantPerson, why: string): Promise<void> {
    const seen = () =>
      service.logLines.filter((line) => line.includes(merchant.credentialId) && line.includes(why)).length;
    const before = seen();
    await dueNow(merchant);
    await untilRotated('it was tried', () => seen() > before || asksOfIam().length > 0);
    expect(asksOfIam()).toEqual([]);
    const row = await rowOf(merchant);
    expect(row).toMatchObject({ state: 'retired', key_state: null, settled: false });
    expect(row.due_in).toBeGreaterThan(10);
  }

  test('that is on record; where it cannot be, while the merchant is suspended or the credential frozen, the key waits', async () => {
    const { merchant, first, arn } = await users.newUser();
    expect((await atIam(merchant)).status).toBe(200);
    await setStatus(merchant, 'suspended');
    service.standIn.forget();
    await endOverlap(merchant);
    await untilRotated('the labels are moved', async () => (await rowOf(merchant)).labelled === 'retired');
    await triedInVain(merchant, 'merchant.not_active');
    await setStatus(merchant, 'active');
    await freeze(merchant, 'frozen');
    await triedInVain(merchant, 'credential.not_usable');
    await freeze(merchant, 'active');
    await admin.query(`REVOKE EXECUTE ON ${APPEND} FROM merchant_bedrock_app`);
    try {
      await triedInVain(merchant, 'rotation waits');
    } finally {
      await admin.query(`GRANT EXECUTE ON ${APPEND} TO merchant_bedrock_app`);
    }
    expect(await trail(merchant)).toEqual(['aws.asked keys']);
    await dueNow(merchant);
    await deactivated(merchant);
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('deactivated');
    expect(await trail(merchant)).toEqual([
      'aws.asked keys',
      'aws.asked keys system',
      'credential.key_deactivated system',
    ]);
  });
});

describe('labels that cannot be moved', () => {
  const denied = () =>
    service.standIn.fault({
      operation: 'UpdateSecretVersionStage',
      status: 400,
      type: 'InvalidParameterException',
      times: 'always',
    });

  test('do not keep the old key at IAM active; and when they are moved, its grace is what it was', async () => {
    const { merchant, first, arn } = await users.newUser();
    const fault = denied();
    expect((await atIam(merchant)).status).toBe(200);
    await endOverlap(merchant);
    await deactivated(merchant);
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('deactivated');
    expect(await rowOf(merchant)).toMatchObject({ state: 'retired', labelled: null });
    expect((await rowOf(merchant)).due_in).toBeLessThan(3_600);
    fault.remove();
    await set(merchant, 'due_at = clock_timestamp()');
    await untilRotated('they are moved', async () => (await rowOf(merchant)).labelled === 'retired');
    expect((await rowOf(merchant)).due_in).toBeGreaterThan(80_000);
  });

  test('keep the next rotation waiting, because it would take the label from the version in force', async () => {
    const { merchant, arn } = await users.newUser();
    const fault = denied();
    expect((await rotate(merchant, users.newKey(arn))).status).toBe(200);
    await endOverlap(merchant);
    const refused = await rotate(merchant, users.newKey(arn));
    expect(refused.json).toMatchObject({ status: 409, code: 'rotation.in_progress', version: 2 });
    fault.remove();
    await dueNow(merchant);
    await settled(merchant);
    expect((await rotate(merchant, users.newKey(arn))).status).toBe(200);
  });

  test.each([
    ['overlap', 'the end of the overlap', `overlap_until = clock_timestamp() + interval '90 seconds'`],
    ['pending', 'the time that a test has', `started_at = clock_timestamp() - interval '510 seconds'`],
  ])('%s: however often it was tried, %s is not slept over', async (state, _what, times) => {
    const { merchant, arn } = await users.newUser();
    expect((await rotate(merchant, users.newKey(arn))).status).toBe(200);
    await admin.query('BEGIN');
    try {
      await set(merchant, `state = '${state}', tries = 9, due_at = clock_timestamp(), ${times}`);
      await admin.query('SELECT rotation_take($1, $2, 2, 60, 600)', [
        merchant.merchantId,
        merchant.credentialId,
      ]);
      const { due_in: dueIn } = await rowOf(merchant);
      expect(dueIn).toBeGreaterThan(30);
      expect(dueIn).toBeLessThanOrEqual(90);
    } finally {
      await admin.query('ROLLBACK');
    }
  });
});

describe('a request that takes so long that another process puts its version in force', () => {
  test('is answered with that, when it asks again', async () => {
    const { merchant } = await users.newUser();
    const fault = service.standIn.fault({
      operation: 'GetCallerIdentity',
      status: 403,
      type: 'InvalidClientTokenId',
    });
    const answer = atIam(merchant);
    await until('it is tested', () => fault.hits() > 0);
    await dueNow(merchant);
    await service.service.rotate();
    expect((await answer).json).toMatchObject({ credential: { version: 2 }, rotation: { state: 'overlap' } });
  });
});
