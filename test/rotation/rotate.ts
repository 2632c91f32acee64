import { setTimeout as sleep } from 'node:timers/promises';
import type { Chance } from '../crash/chance.ts';
import type { FaultHandle } from '../aws/faults.ts';
import { until } from '../support/until.ts';
import { OVERLAP_MS } from './town.ts';
import type { Citizen, Key, Town } from './town.ts';

export interface Rotator {
  town: Town;
  chance: Chance;
  /** Every key that was ever in use, by its id. */
  keys: Map<string, Key>;
  /** The key of each citizen's current version. */
  current: Map<string, Key>;
}

export function rotateBody({ accessKeyId, secretAccessKey }: Key) {
  return { kind: 'access-key', awsAccessKeyId: accessKeyId, awsSecretAccessKey: secretAccessKey };
}

/** A new key of the citizen's account, known to the books. */
export function keyFor({ town, keys }: Rotator, { accountId }: Citizen): Key {
  const key = town.newKey(accountId);
  keys.set(key.accessKeyId, key);
  return key;
}

/** Nothing of an earlier rotation is in the way. */
export async function free(town: Town, citizen: Citizen): Promise<void> {
  await until('the overlap before is over', async () => {
    const rotation = await town.rotationOf(citizen);
    return rotation === undefined || !['pending', 'overlap'].includes(rotation.state);
  });
}

/** Soon after the new key is in force, by the database: the answer of the rotation may come when the overlap is nearly over. */
async function removeInTheOverlap(fault: FaultHandle, town: Town, citizen: Citizen): Promise<void> {
  const begun = (await town.rotationOf(citizen))?.version ?? 0;
  await until('the new key is in force', async () => {
    const rotation = await town.rotationOf(citizen);
    return rotation !== undefined && rotation.version > begun && rotation.state !== 'pending';
  }).catch(() => undefined);
  await sleep(OVERLAP_MS / 8, undefined, { ref: false });
  fault.remove();
}

/**
 * One rotation under load, with what can happen around it: the new key is not known everywhere yet, the old one is deleted early, or the
 * merchant rolls back. @returns what became of it
 */
export async function rotateOnce(rotator: Rotator, citizen: Citizen): Promise<'rotated' | 'rolled back'> {
  const { town, chance, current } = rotator;
  await free(town, citizen);
  const [before, key] = [current.get(citizen.id), keyFor(rotator, citizen)];
  // For less than the overlap, and never together with an old key that is gone: nobody could sign then.
  const slow = chance.happens(0.3);
  const fault = slow
    ? town.standIn.fault({
        operation: chance.one(['Converse', 'InvokeModel']),
        accessKeyId: key.accessKeyId,
        status: 403,
        type: 'UnrecognizedClientException',
        times: chance.between(1, 3),
      })
    : undefined;
  if (fault !== undefined) void removeInTheOverlap(fault, town, citizen);
  const person = town.at(chance.between(0, 1), citizen);
  const answer = await person.post(`/credentials/${citizen.credentialId}/rotate`, rotateBody(key));
  if (answer.status !== 200)
    throw new Error(`a rotation was answered ${String(answer.status)}: ${answer.text}`);
  if (chance.happens(0.2)) {
    await sleep(chance.between(0, 300));
    const back = await person.send('POST', `/credentials/${citizen.credentialId}/rollback`);
    if (back.status === 200) return 'rolled back';
    // A slow machine came too late for it.
    if (back.json['code'] !== 'rotation.not_reversible')
      throw new Error(`a rollback was answered ${back.text}`);
  }
  current.set(citizen.id, key);
  // Some merchants delete the old key at AWS too early, the others when they may.
  const early = !slow && chance.happens(0.25);
  if (before !== undefined)
    void sleep(early ? 0 : OVERLAP_MS + 5_000, undefined, { ref: false }).then(() => {
      town.standIn.addAccessKey({ ...before, state: 'deactivated' });
    });
  return 'rotated';
}
