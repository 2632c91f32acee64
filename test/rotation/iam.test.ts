import { expect, test } from '@jest/globals';
import { accessKeyHint } from '../../src/domain/credential.ts';
import type { FaultHandle, FaultRule } from '../aws/faults.ts';
import { newTestDatabase } from '../support/database.ts';
import { converseBody } from '../support/people.ts';
import { until } from '../support/until.ts';
import { MODEL, Town } from './town.ts';
import type { Citizen, Key } from './town.ts';

const ACCOUNT = '100000000001';
/** Longer than anything here waits: what is held up is so until its process dies. Milliseconds. */
const HELD_MS = 60_000;
const DAY_MS = 86_400_000;
/** What waits before it is done, and what is done and not answered. */
const BEFORE = { delayMs: HELD_MS };
const AFTER = { beforeHeadersHangMs: HELD_MS };

interface User extends Citizen {
  first: Key;
  arn: string;
}

/** Requests that are held up in the middle. Those without the user's own signature come one after the other. */
const IN_REQUESTS: Readonly<Record<string, FaultRule>> = {
  'promoted, not labelled': { operation: 'UpdateSecretVersionStage', ...BEFORE },
  'sealed, not tested': { operation: 'GetCallerIdentity', ...BEFORE },
  'made, not sealed': { operation: 'GenerateDataKey', ...BEFORE },
  'not asked for': { operation: 'ListAccessKeys', ...BEFORE },
  'asked for, not made': { operation: 'CreateAccessKey', ...BEFORE },
  'made, not told': { operation: 'CreateAccessKey', ...AFTER },
};
/** The same of the worker; signed by the new key. */
const IN_THE_WORKER: Readonly<Record<string, FaultRule>> = {
  'not deactivated': { operation: 'UpdateAccessKey', ...BEFORE },
  'deactivated, not written': { operation: 'UpdateAccessKey', ...AFTER },
  'not deleted': { operation: 'DeleteAccessKey', ...BEFORE },
  'deleted, not written': { operation: 'DeleteAccessKey', ...AFTER },
};

test('mode iam, and the processes are killed at every step: calls go on, and of the keys at IAM the current one is left, and what is not ours', async () => {
  await using database = await newTestDatabase();
  await using town = await Town.open({
    database,
    env: { ROTATION_OVERLAP_MS: '600000', ROTATION_KEY_GRACE_MS: String(DAY_MS) },
  });
  const names = [...Object.keys(IN_REQUESTS), ...Object.keys(IN_THE_WORKER)];
  const users = new Map(
    await Promise.all(names.map(async (name, index) => [name, await moveIn(town, index)] as const)),
  );
  const user = (name: string) => users.get(name) as User;
  const faults: FaultHandle[] = [];

  await parkInTheWorker(town, users);
  for (const [name, rule] of Object.entries(IN_REQUESTS)) {
    const { first } = user(name);
    const signer = rule.operation?.includes('AccessKey') === true ? { accessKeyId: first.accessKeyId } : {};
    const fault = town.standIn.fault({ ...rule, ...signer });
    faults.push(fault);
    void rotate(town, user(name)).catch(() => undefined);
    await until(`${name}: under way`, () => fault.hits() > 0);
  }
  for (const [name, rule] of Object.entries(IN_THE_WORKER))
    faults.push(town.standIn.fault({ ...rule, accessKeyId: newKeyOf(town, user(name)), times: 'always' }));
  await town.admin.query(
    `UPDATE credential_rotations SET due_at = clock_timestamp(), key_due_at = CASE key_state WHEN 'deactivated' THEN clock_timestamp() END WHERE state = 'retired'`,
  );
  const inTheWorker = faults.slice(Object.keys(IN_REQUESTS).length);
  await until('the worker is held up four times', () => inTheWorker.every((fault) => fault.hits() > 0));

  await Promise.all([0, 1].map((index) => town.replica(index).end('SIGKILL')));
  for (const fault of faults) fault.remove();
  const foreign = town.newKey(ACCOUNT, { arn: user('not asked for').arn });
  await town.restart(0);
  for (const one of users.values()) expect(await call(town, one)).toBe(200);
  await settled(town);

  for (const [name, one] of users) {
    const left = Object.fromEntries(
      town.standIn
        .accessKeysOf(one.arn)
        .map(({ accessKeyId, state = 'active' }) => [accessKeyHint(accessKeyId), state]),
    );
    const { json } = await town.at(0, one).get(`/credentials/${one.credentialId}`);
    const notOurs = name === 'not asked for' ? { [accessKeyHint(foreign.accessKeyId)]: 'active' } : {};
    expect({ name, left }).toEqual({ name, left: { [String(json['keyHint'])]: 'active', ...notOurs } });
    expect(await call(town, one)).toBe(200);
  }
  const made = [...users.values()].flatMap(({ arn }) => town.standIn.accessKeysOf(arn));
  const secrets = made.map(({ accessKeyId, secretAccessKey }) => [accessKeyId, secretAccessKey] as const);
  expect(await town.leaks(new Map(secrets))).toEqual([]);
}, 300_000);

async function moveIn(town: Town, index: number): Promise<User> {
  const arn = `arn:aws:iam::${ACCOUNT}:user/citizen-${String(index)}`;
  const first = town.newKey(ACCOUNT, { arn, createdAtMs: Date.now() - DAY_MS });
  return { ...(await town.moveIn(`citizen-${String(index)}`, first)), first, arn };
}

const rotate = (town: Town, one: User) =>
  town.at(0, one).post(`/credentials/${one.credentialId}/rotate`, { mode: 'iam' });

async function call(town: Town, one: User): Promise<number> {
  return (await town.at(0, one).post(`/model/${MODEL}/converse`, converseBody('hello'))).status;
}

function newKeyOf(town: Town, { arn, first }: User): string {
  const keys = town.standIn.accessKeysOf(arn).map(({ accessKeyId }) => accessKeyId);
  return keys.find((id) => id !== first.accessKeyId) ?? '';
}

/** Two whose old key is about to be deactivated, and two whose old key is about to be deleted; none of them is due by itself. */
async function parkInTheWorker(town: Town, users: ReadonlyMap<string, User>): Promise<void> {
  const names = Object.keys(IN_THE_WORKER);
  const refusals: FaultHandle[] = [];
  await Promise.all(
    names.map(async (name) => {
      const one = users.get(name) as User;
      expect((await rotate(town, one)).status).toBe(200);
      if (IN_THE_WORKER[name]?.operation !== 'UpdateAccessKey') return;
      const signer = { accessKeyId: newKeyOf(town, one) };
      const refusal = { operation: 'UpdateAccessKey', ...signer, status: 500, type: 'ServiceFailure' };
      refusals.push(town.standIn.fault({ ...refusal, times: 'always' }));
    }),
  );
  await endOverlaps(town);
  await until('their keys are tried, or deactivated', async () => {
    const { rows } = await town.admin.query<{ count: string }>(
      `SELECT count(*) FROM credential_rotations WHERE state = 'retired' AND labelled = 'retired' AND due_at > clock_timestamp() + interval '10 seconds'`,
    );
    return Number(rows[0]?.count) === names.length && refusals.every((refusal) => refusal.hits() > 1);
  });
  for (const refusal of refusals) refusal.remove();
}

async function endOverlaps(town: Town): Promise<void> {
  await town.admin.query(
    `UPDATE credential_versions SET overlap_until = clock_timestamp() WHERE state = 'previous'`,
  );
  await town.admin.query(
    `UPDATE credential_rotations SET overlap_until = clock_timestamp() WHERE state = 'overlap'`,
  );
}

/** Does what waiting would do, until nothing is left to do. */
async function settled(town: Town): Promise<void> {
  let nextAt = 0;
  await until(
    'all is settled',
    async () => {
      if (performance.now() > nextAt) {
        nextAt = performance.now() + 1_000;
        await endOverlaps(town);
        await town.admin.query(
          `UPDATE credential_rotations SET due_at = clock_timestamp(), ended_at = ended_at - interval '6 minutes',
           key_due_at = CASE key_state WHEN 'deactivated' THEN clock_timestamp() END WHERE due_at IS NOT NULL`,
        );
      }
      const { rowCount } = await town.admin.query(
        'SELECT 1 FROM credential_rotations WHERE due_at IS NOT NULL',
      );
      return rowCount === 0;
    },
    { limitMs: 90_000 },
  );
}
