import type { Logger } from '../observability/logger.ts';
import { errorFields } from '../observability/logger.ts';
import { reasonOf } from './aws-failure.ts';
import type { OpenedCache } from './opened-cache.ts';
import type { RotationKeys } from './rotation-keys.ts';
import type { DueRotation, RotationChange, RotationName } from './rotation-state.ts';
import { isFinal, isParked, isUnknownKey } from './rotation-steps.ts';
import type { RotationSteps } from './rotation-steps.ts';
import type { RotationStore } from './rotation-store.ts';
import type { Vault } from './vault.ts';

export interface RotationWorkerParts {
  store: Pick<RotationStore, 'due' | 'over' | 'take' | 'putOff' | 'fail' | 'retire' | 'changed'>;
  steps: Pick<RotationSteps, 'prove' | 'label'>;
  keys: Pick<RotationKeys, 'clean'>;
  vault: Pick<Vault, 'forgetCurrent'>;
  opened: Pick<OpenedCache, 'forget'>;
  logger: Logger;
}

const DUE_AT_ONCE = 50;
const OVER_AT_ONCE = 200;
const AT_ONE_TIME = 4;
const ACTOR = { subject: 'system', requestId: 'rotation' };

/**
 * Goes on with rotations whose process died, or whose time has come: found by their state in Postgres, each taken by one replica at a time.
 * Tells this process what changed elsewhere, so that it remembers no version for longer than a round.
 */
export class RotationWorker implements AsyncDisposable {
  readonly #parts: RotationWorkerParts;
  /** Told already; the database tells each change for a while. */
  #known: ReadonlySet<string> = new Set();
  #telling: Promise<void> | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(parts: RotationWorkerParts) {
    this.#parts = parts;
  }

  /**
   * What concerns the database alone, then the steps. Each one at a time: while one runs, others are that one. So an AWS that does not answer
   * delays neither what this process is told nor the end of an overlap. @throws ServiceError ledger.unavailable
   */
  async round(): Promise<void> {
    this.#telling ??= this.#tell().finally(() => (this.#telling = undefined));
    await this.#telling;
    this.#running ??= this.#goOnWithAll().finally(() => (this.#running = undefined));
    await this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled([this.#telling, this.#running]);
  }

  async #tell(): Promise<void> {
    const { store } = this.#parts;
    this.#forget(await store.changed());
    for (const name of await store.over(OVER_AT_ONCE)) {
      await store.retire(ACTOR, name).catch((error: unknown) => {
        this.#waits(name, error);
      });
    }
  }

  /** Some at a time. Those that stay at the head of the queue, whatever is wrong with them, are passed by. */
  async #goOnWithAll(): Promise<void> {
    for (let past = 0; !this.#stopped;) {
      const due = await this.#parts.store.due(DUE_AT_ONCE, past);
      const stuck = await this.#goOnWith(due.values());
      if (stuck === 0 || due.length < DUE_AT_ONCE) return;
      past += stuck;
    }
  }

  /** @returns how many are as due as before. */
  async #goOnWith(due: Iterable<RotationName>): Promise<number> {
    let stuck = 0;
    // One secret that does not answer must not keep the others waiting.
    await Promise.all(
      Array.from({ length: AT_ONE_TIME }, async () => {
        for (const name of due) if (!this.#stopped && !(await this.#goOn(name))) stuck += 1;
      }),
    );
    return stuck;
  }

  #forget(changes: readonly RotationChange[]): void {
    const { vault, opened } = this.#parts;
    const told = new Set<string>();
    for (const change of changes) {
      const key = `${change.merchantId}/${change.credentialId}/${String(change.version)}/${change.state}`;
      told.add(key);
      if (this.#known.has(key)) continue;
      vault.forgetCurrent(change.merchantId, change.credentialId);
      if (change.shredded !== null) opened.forget({ ...change, version: change.shredded });
    }
    this.#known = told;
  }

  /** @returns false when it is as due as before: it could be neither taken nor put off. */
  async #goOn(name: RotationName): Promise<boolean> {
    const { store } = this.#parts;
    try {
      const taken = await store.take(name);
      if (taken === undefined) return true;
      await this.#step(taken).catch((error: unknown) => {
        this.#waits(name, error);
      });
      return true;
    } catch (error) {
      this.#waits(name, error);
      return store.putOff(name).then(
        () => true,
        () => false,
      );
    }
  }

  #waits(name: RotationName, error: unknown): void {
    this.#parts.logger.warn('rotation waits: its step is tried again', {
      ...nameOf(name),
      ...errorFields(error),
    });
  }

  async #step(due: DueRotation): Promise<void> {
    const { store, steps, logger } = this.#parts;
    if (due.state === 'pending') {
      const outcome = await this.#prove(due);
      logger.warn('rotation resumed: its process is gone', { ...nameOf(due), outcome });
      if (outcome === 'promoted') await steps.label(due, 'overlap');
    } else if (due.state === 'overlap' && due.overlapOver === true) {
      if (await store.retire(ACTOR, due)) await steps.label(due, 'retired');
    } else if (due.labelled !== due.state) {
      await steps.label(due, due.state).catch(async (error: unknown) => {
        if (hasKeyToClean(due)) await this.#clean(due);
        throw error;
      });
    } else {
      await this.#clean(due);
    }
  }

  async #clean(due: DueRotation): Promise<void> {
    if ((await this.#parts.keys.clean(ACTOR, due)) !== 'left') return;
    this.#parts.logger.warn('rotation: the old key is left at another IAM user', nameOf(due));
  }

  /** @throws ServiceError when it is worth another try */
  async #prove(due: DueRotation): Promise<string> {
    const { store, steps } = this.#parts;
    try {
      return await steps.prove(ACTOR, due);
    } catch (error) {
      const final = isFinal(error) && !(due.mode === 'iam' && isUnknownKey(error));
      if (isParked(error)) throw error;
      if (!final && !due.overdue) throw error;
      const reason = final ? reasonOf(error) : 'timed-out';
      await store.fail(ACTOR, due, reason);
      return `failed: ${reason}`;
    }
  }
}

/** A key that nobody needs does not wait for labels. */
function hasKeyToClean({ mode, state, keyState, keyDue }: DueRotation): boolean {
  if (mode !== 'iam' || state === 'pending' || state === 'overlap') return false;
  return keyState === null || (keyState === 'deactivated' && keyDue);
}

function nameOf({ merchantId, credentialId, version }: RotationName) {
  return { merchantId, credentialId, version };
}
