import { setTimeout as sleep } from 'node:timers/promises';
import type { Load } from './load.ts';
import { free, keyFor, rotateBody } from './rotate.ts';
import type { Rotator } from './rotate.ts';
import { until } from '../support/until.ts';
import { OVERLAP_MS } from './town.ts';
import type { Citizen, Key, Town } from './town.ts';

/** A step of a rotation in which the process that does it is killed. Each is observed from outside: at the stand-in or in the database. */
interface Step {
  /** How the rotation must end. */
  ends: 'failed' | 'in force';
  /** Returns when the step is under way; what it gives back is called when the process is dead. */
  reach: (scene: Scene) => Promise<() => Promise<void>>;
}

interface Scene {
  town: Town;
  citizen: Citizen;
  key: Key;
}

const HELD_MS = 4_000;
const nothing = () => Promise.resolve();

/** Waits until a request of this operation is under way at AWS, which takes its time over it. */
function atAws(operation: string, how: 'delayMs' | 'beforeHeadersHangMs', byNewKey = false): Step['reach'] {
  return async ({ town, key }) => {
    const fault = town.standIn.fault({
      operation,
      [how]: HELD_MS,
      ...(byNewKey && { accessKeyId: key.accessKeyId }),
    });
    await until(`${operation} is under way`, () => fault.hits() > 0);
    await sleep(100);
    return () => {
      fault.remove();
      return nothing();
    };
  };
}

/** Waits until a statement waits for the merchant's audit head, which the harness takes when nothing before that statement needs it any more. */
function inPostgres(statement: string, isNext: (scene: Scene) => boolean | Promise<boolean>): Step['reach'] {
  return async (scene) => {
    const { town, citizen } = scene;
    await until(`${statement} is next`, () => isNext(scene));
    const client = await town.admin.connect();
    await client.query('BEGIN');
    await client.query('SELECT 1 FROM audit_heads WHERE merchant_id = $1 FOR UPDATE', [citizen.id]);
    try {
      await until(`${statement} waits`, async () => {
        const { rowCount } = await town.admin.query(
          `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'merchant-bedrock' AND wait_event_type = 'Lock' AND query LIKE $1`,
          [`%${statement}(%`],
        );
        return (rowCount ?? 0) > 0;
      });
    } catch (error) {
      await client.query('ROLLBACK');
      client.release();
      throw error;
    }
    return async () => {
      await client.query('ROLLBACK');
      client.release();
    };
  };
}

export const STEPS: Readonly<Record<string, Step>> = {
  'making the data key': { ends: 'failed', reach: atAws('GenerateDataKey', 'delayMs') },
  'writing the ciphertext': { ends: 'failed', reach: atAws('PutSecretValue', 'delayMs') },
  'ciphertext written': { ends: 'failed', reach: atAws('PutSecretValue', 'beforeHeadersHangMs') },
  testing: { ends: 'in force', reach: atAws('ListInferenceProfiles', 'delayMs', true) },
  promoting: {
    // The last question of the test takes its time, so that the lock is there before the answer.
    ends: 'in force',
    reach: (scene) => {
      const { accessKeyId } = scene.key;
      const fault = scene.town.standIn.fault({
        ...{ operation: 'GetFoundationModelAvailability', accessKeyId },
        delayMs: 3_000,
      });
      return inPostgres('rotation_promote', () => fault.hits() > 0)(scene);
    },
  },
  labelling: { ends: 'in force', reach: atAws('UpdateSecretVersionStage', 'delayMs') },
  overlapping: {
    ends: 'in force',
    reach: async ({ town, citizen }) => {
      await until('it is in its overlap', async () => (await town.rotationOf(citizen))?.state === 'overlap');
      return nothing;
    },
  },
  retiring: {
    ends: 'in force',
    reach: inPostgres('rotation_retire', async ({ town, citizen }) => {
      const rotation = await town.rotationOf(citizen);
      return rotation?.state === 'overlap' && rotation.labelled === 'overlap';
    }),
  },
};

/**
 * Begins a rotation, kills the replica that does it at one step, and waits until the other one has brought it to its end. Calls go on.
 * @returns what was wrong
 */
export async function dieAt(
  name: string,
  rotator: Rotator,
  { citizen, load }: { citizen: Citizen; load: Load },
): Promise<string[]> {
  const { town, current } = rotator;
  const step = STEPS[name];
  if (step === undefined) throw new Error(`no step is called ${name}`);
  await free(town, citizen);
  const earlier = (await town.rotationOf(citizen))?.version ?? 0;
  const key = keyFor(rotator, citizen);
  load.avoided.add(0);
  const answer = town
    .at(0, citizen)
    .post(`/credentials/${citizen.credentialId}/rotate`, rotateBody(key))
    .catch(() => undefined);
  const afterDeath = await step.reach({ town, citizen, key });
  await town.replica(0).end('SIGKILL');
  await afterDeath();
  await answer;
  let nextAt = 0;
  await until(
    `${name}: it is over`,
    async () => {
      // What waiting for the end of its lease would do; again for a step that had to be tried again.
      if (performance.now() > nextAt) {
        nextAt = performance.now() + 3_000;
        await town.admin.query(
          `UPDATE credential_rotations SET due_at = clock_timestamp() WHERE credential_id = $1 AND due_at > clock_timestamp()
             AND NOT (state = 'overlap' AND labelled IS NOT DISTINCT FROM 'overlap')`,
          [citizen.credentialId],
        );
      }
      const rotation = await town.rotationOf(citizen);
      return rotation !== undefined && rotation.version > earlier && rotation.settled;
    },
    { limitMs: OVERLAP_MS + 40_000 },
  );
  await town.restart(0);
  load.avoided.delete(0);
  const rotation = await town.rotationOf(citizen);
  const ended = rotation?.state === 'retired' ? 'in force' : rotation?.state;
  if (ended === 'in force') current.set(citizen.id, key);
  return [
    ...(ended === step.ends || (name === 'promoting' && ended !== undefined)
      ? []
      : [`${name}: it ended ${String(ended)}`]),
    ...(await labelFaults(name, town, citizen)),
  ];
}

/** Only the current version bears a label when all is over. */
async function labelFaults(name: string, town: Town, { credentialId }: Citizen): Promise<string[]> {
  const { rows } = await town.admin.query<{ name: string; id: string }>(
    `SELECT secret_name AS name, secret_version_id AS id FROM credential_versions WHERE credential_id = $1 AND state = 'current'`,
    [credentialId],
  );
  const labels = JSON.stringify(town.standIn.secretLabels(rows[0]?.name ?? ''));
  return labels === JSON.stringify({ AWSCURRENT: rows[0]?.id }) ? [] : [`${name}: the labels are ${labels}`];
}
