import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { asIfItDied, IamUsers } from '../support/iam-users.ts';
import type { IamKey, IamUser } from '../support/iam-users.ts';
import { converseBody } from '../support/people.ts';
import type { Answer, MerchantPerson } from '../support/people.ts';
import { startTestService } from '../support/service.ts';
import type { TestService } from '../support/service.ts';

// What rotations leave over: at IAM, in the queue of those that wait, and in the memory of a process.

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

const at = ({ credentialId }: MerchantPerson, what: string) => `/credentials/${credentialId}/${what}`;
const atIam = (merchant: MerchantPerson): Promise<Answer> =>
  merchant.post(at(merchant, 'rotate'), { mode: 'iam' });
const rotate = (merchant: MerchantPerson, key: IamKey): Promise<Answer> =>
  merchant.post(at(merchant, 'rotate'), {
    kind: 'access-key',
    awsAccessKeyId: key.accessKeyId,
    awsSecretAccessKey: key.secretAccessKey,
  });
const converse = (merchant: MerchantPerson) => merchant.post(`/model/${MODEL}/converse`, converseBody('x'));

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
  due: boolean;
  settled: boolean;
}

async function rowOf({ credentialId }: MerchantPerson, version = 2): Promise<Row> {
  const { rows } = await admin.query<Row>(
    `SELECT state, key_state, labelled, tries, coalesce(due_at <= clock_timestamp(), false) AS due, due_at IS NULL AS settled
     FROM credential_rotations WHERE credential_id = $1 AND version = $2`,
    [credentialId, version],
  );
  return rows[0] as Row;
}

/** Asks again until it is so; meanwhile the service does at once what it does every second. */
async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 20_000;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`);
    await service.service.rotate();
    await sleep(20);
  }
}

/** The version's rotation is due, and the worker has had it: its step is over. */
async function turn(merchant: MerchantPerson, version = 2): Promise<void> {
  await admin.query(
    `UPDATE credential_rotations SET due_at = clock_timestamp(), key_due_at = CASE WHEN key_due_at IS NOT NULL THEN clock_timestamp() END
     WHERE credential_id = $1 AND version = $2 AND due_at IS NOT NULL`,
    [merchant.credentialId, version],
  );
  await until('it was looked at', async () => !(await rowOf(merchant, version)).due);
  await service.service.rotate();
}

async function endOverlap(merchant: MerchantPerson, version: number): Promise<void> {
  await admin.query(
    `UPDATE credential_versions SET overlap_until = clock_timestamp() WHERE credential_id = $1 AND state = 'previous'`,
    [merchant.credentialId],
  );
  await admin.query(
    `UPDATE credential_rotations SET overlap_until = clock_timestamp(), due_at = clock_timestamp() WHERE credential_id = $1 AND state = 'overlap'`,
    [merchant.credentialId],
  );
  await until('it is retired', async () => (await rowOf(merchant, version)).labelled === 'retired');
}

/** Rotates to this key, and the overlap is over. */
async function rotated(merchant: MerchantPerson, key: IamKey, version: number): Promise<void> {
  expect((await rotate(merchant, key)).status).toBe(200);
  await endOverlap(merchant, version);
}

/** After a rotation at IAM, by which the first key was deactivated. */
async function leftOver(): Promise<IamUser> {
  const user = await users.newUser();
  expect((await atIam(user.merchant)).status).toBe(200);
  await endOverlap(user.merchant, 2);
  await until(
    'the first key is deactivated',
    async () => (await rowOf(user.merchant)).key_state === 'deactivated',
  );
  expect(keysAtIam(user.arn)[user.first.accessKeyId]).toBe('deactivated');
  return user;
}

async function auditOf({ merchantId }: MerchantPerson, like = 'credential.key%') {
  const { rows } = await admin.query<{ action: string; body: string }>(
    'SELECT action, body FROM audit_events WHERE merchant_id = $1 AND action LIKE $2 ORDER BY seq',
    [merchantId, like],
  );
  return rows.map(({ action, body }) => ({ action, body: JSON.parse(body) as Record<string, unknown> }));
}
const actionsOf = async (merchant: MerchantPerson) => (await auditOf(merchant)).map(({ action }) => action);

describe('a key at IAM that a rotation deactivated', () => {
  test('is its owner’s again when the credential is rotated back to it: not called deleted, and not deleted later', async () => {
    const { merchant, first, arn } = await leftOver();
    service.standIn.addAccessKey({ ...first, state: 'active' });
    await rotated(merchant, first, 3);
    // Also when it was replaced once more, and its owner deactivated it.
    await rotated(merchant, users.newKey(arn), 4);
    service.standIn.addAccessKey({ ...first, state: 'deactivated' });
    await turn(merchant);
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'none', settled: true });
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('deactivated');
    expect(await actionsOf(merchant)).toEqual(['credential.key_deactivated']);
  });

  test('is not called deleted while it is in force', async () => {
    const { merchant, first, arn } = await leftOver();
    service.standIn.addAccessKey({ ...first, state: 'active' });
    await rotated(merchant, first, 3);
    await turn(merchant);
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'none', settled: true });
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('active');
    expect(await actionsOf(merchant)).toEqual(['credential.key_deactivated']);
  });

  test('is not called deleted by us when its owner deleted it, though we had asked in vain', async () => {
    const { merchant, first, arn } = await leftOver();
    // Of no user that is asked for: as good as deleted.
    const deleteIt = () => {
      service.standIn.addAccessKey({ ...first, arn: users.newArn() });
    };
    const refusal = { status: 403, type: 'AccessDenied', times: 'always' } as const;
    const refused = service.standIn.fault({ operation: 'DeleteAccessKey', ...refusal });
    await turn(merchant);
    refused.remove();
    expect(refused.hits()).toBeGreaterThan(0);
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'deactivated', settled: false });
    deleteIt();
    await turn(merchant);
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'none', settled: true });
    expect(keysAtIam(arn)[first.accessKeyId]).toBeUndefined();
    expect(await actionsOf(merchant)).toEqual(['credential.key_deactivated']);
  });
});

describe('where the credential is of another IAM user by now', () => {
  const toldInLog = ({ credentialId }: MerchantPerson) =>
    service.logLines.filter(
      (line) => line.includes('left at another IAM user') && line.includes(credentialId),
    ).length;

  test('the key stays deactivated at the first one, which its owner is told; the other’s are not looked at', async () => {
    const { merchant, first, arn } = await leftOver();
    const other = users.newArn();
    const [second, third] = [users.newKey(other), users.newKey(other)];
    await rotated(merchant, second, 3);
    service.standIn.forget();
    await turn(merchant);
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'left', settled: true });
    expect(keysAtIam(arn)[first.accessKeyId]).toBe('deactivated');
    expect(keysAtIam(other)).toEqual({ [second.accessKeyId]: 'active', [third.accessKeyId]: 'active' });
    expect(asksOfIam()).toEqual([]);
    const hint = expect.stringContaining(first.accessKeyId.slice(-4)) as unknown;
    expect((await auditOf(merchant)).slice(1)).toEqual([
      {
        action: 'credential.key_left',
        body: { version: 2, deactivated: true, principalArn: arn, keyHint: hint },
      },
    ]);
    expect(toldInLog(merchant)).toBe(1);
  });

  test('one that is known by its age alone is not taken for one of the other’s', async () => {
    const { merchant, arn } = await users.newUser();
    service.standIn.fault({ operation: 'CreateAccessKey', reset: true });
    expect((await atIam(merchant)).json).toMatchObject({ code: 'upstream.unreachable' });
    const { rows } = await admin.query<{ asked: Date }>(
      'SELECT key_asked_at AS asked FROM credential_rotations WHERE credential_id = $1',
      [merchant.credentialId],
    );
    const other = users.newArn();
    const second = users.newKey(other);
    // As if it were the one that was made when one was asked for.
    const third = users.newKey(other, { createdAtMs: rows[0]?.asked.getTime() ?? NaN });
    await rotated(merchant, second, 3);
    await turn(merchant);
    expect(keysAtIam(other)).toEqual({ [second.accessKeyId]: 'active', [third.accessKeyId]: 'active' });
    expect(await rowOf(merchant)).toMatchObject({ key_state: 'left', settled: true });
    expect((await auditOf(merchant)).map(({ body }) => body)).toEqual([
      { version: 2, deactivated: false, principalArn: arn, keyHint: null },
    ]);
  });
});

describe('a rotation that waits', () => {
  test('goes on however often it was tried', async () => {
    const { merchant, arn } = await users.newUser();
    const second = users.newKey(arn);
    const answer = await asIfItDied(admin, () => rotate(merchant, second));
    expect(answer.status).toBeGreaterThanOrEqual(500);
    const setStatus = (status: string) =>
      admin.query('UPDATE merchants SET status = $2 WHERE id = $1', [merchant.merchantId, status]);
    await setStatus('suspended');
    await admin.query('UPDATE credential_rotations SET tries = 5000 WHERE credential_id = $1', [
      merchant.credentialId,
    ]);
    await turn(merchant);
    expect(await rowOf(merchant)).toMatchObject({ state: 'pending', tries: 5001 });
    await setStatus('active');
    await turn(merchant);
    expect(await rowOf(merchant)).toMatchObject({ state: 'overlap' });
    expect((await converse(merchant)).status).toBe(200);
    expect(service.standIn.journal.at(-1)).toMatchObject({ accessKeyId: second.accessKeyId });
  });

  describe('behind many that cannot be taken', () => {
    const POISONED = 60;
    /** Rotations of no consequence that are due before all others. */
    async function poison({ merchantId, credentialId }: MerchantPerson): Promise<void> {
      await admin.query(
        `INSERT INTO credential_rotations (merchant_id, credential_id, version, replaces, state, mode, secret_name, secret_version_id, started_by,
           started_at, changed_at, ended_at, labelled, due_at, tries)
         SELECT $1, $2, 100 + n, 1, 'retired', 'material', 'x', 'x', 'x', t, t, t, 'retired', t, 2147483647
         FROM generate_series(1, $3::integer) AS n, (SELECT clock_timestamp() - interval '1 day' AS t) AS now`,
        [merchantId, credentialId, POISONED],
      );
    }
    /** A merchant whose rotation waits for its labels, and three rounds that begin when it is due, behind the others. */
    async function behind(poisoned: MerchantPerson): Promise<MerchantPerson> {
      const { merchant, arn } = await users.newUser();
      const fault = service.standIn.fault({
        operation: 'UpdateSecretVersionStage',
        status: 400,
        type: 'InvalidParameterException',
        times: 'always',
      });
      expect((await rotate(merchant, users.newKey(arn))).status).toBe(200);
      fault.remove();
      await poison(poisoned);
      await admin.query(
        `UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1`,
        [merchant.credentialId],
      );
      // The first may be one that had begun before.
      for (let round = 0; round < 3; round += 1) await service.service.rotate();
      return merchant;
    }
    const remove = ({ credentialId }: MerchantPerson) =>
      admin.query('DELETE FROM credential_rotations WHERE credential_id = $1', [credentialId]);

    test('has its turn; those are tried again a minute later, and the log says what the database said', async () => {
      const { merchant: poisoned } = await users.newUser();
      const merchant = await behind(poisoned);
      const { rows } = await admin.query<{ seconds: number | null }>(
        `SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8 AS seconds FROM credential_rotations WHERE credential_id = $1`,
        [poisoned.credentialId],
      );
      await remove(poisoned);
      expect(await rowOf(merchant)).toMatchObject({ labelled: 'overlap' });
      expect(rows[0]?.seconds).toBeGreaterThan(0);
      expect(
        service.logLines.find(
          (line) => line.includes('rotation waits') && line.includes(poisoned.credentialId),
        ),
      ).toContain('P2010 22003');
    });

    test('has its turn also where those cannot even be put off', async () => {
      const { merchant: poisoned } = await users.newUser();
      await admin.query(
        `CREATE FUNCTION no_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'P0001'; END $$;
         CREATE TRIGGER no_change BEFORE UPDATE ON credential_rotations FOR EACH ROW WHEN (OLD.version > 100) EXECUTE FUNCTION no_change()`,
      );
      try {
        const merchant = await behind(poisoned);
        expect(await rowOf(merchant)).toMatchObject({ labelled: 'overlap' });
      } finally {
        await remove(poisoned);
        await admin.query('DROP TRIGGER no_change ON credential_rotations; DROP FUNCTION no_change()');
      }
    });
  });
});

describe('what the new key may do', () => {
  test('is not asked with the one before when that was frozen, whatever a process remembers; and it says so', async () => {
    const { merchant, first, arn } = await users.newUser();
    expect((await converse(merchant)).status).toBe(200);
    await admin.query(`UPDATE credentials SET state = 'frozen' WHERE id = $1`, [merchant.credentialId]);
    service.standIn.forget();
    const answer = await rotate(merchant, users.newKey(arn));
    expect(answer.json).toMatchObject({
      rotation: { state: 'overlap' },
      warnings: [expect.stringContaining('was not compared')],
    });
    expect(service.standIn.journal.filter(({ accessKeyId }) => accessKeyId === first.accessKeyId)).toEqual(
      [],
    );
  });

  test('is asked with both after that is on record', async () => {
    const { merchant, first, arn } = await users.newUser();
    const answer = await rotate(merchant, users.newKey(arn));
    expect(answer.json).toMatchObject({ warnings: [] });
    expect(service.standIn.journal.some(({ accessKeyId }) => accessKeyId === first.accessKeyId)).toBe(true);
    expect((await auditOf(merchant, 'aws.asked')).map(({ body }) => body['about']).slice(-2)).toEqual([
      'identity',
      'permissions',
    ]);
  });
});
