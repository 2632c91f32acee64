import type { Actor } from '../domain/audit.ts';
import { ServiceError } from '../domain/errors.ts';
import { reasonOf } from './aws-failure.ts';
import type { DataKeyStore, RewrappedKey, WrappedKey } from './data-key-store.ts';

/** The KMS key that wraps from now on, and how a data key gets under it. The data key itself never comes here. */
export interface DataKeyWrapping {
  /** ARN of the KMS key that the settings name. @throws ServiceError vault.unavailable, with AWS's name for the reason as `extra.reason` */
  wanted(): Promise<string>;
  /**
   * The same data key wrapped by `arn`, for the same place; what Secrets Manager keeps is moved under that key first.
   * @throws ServiceError vault.unavailable, with AWS's name for the reason as `extra.reason`. Cost: one call of each.
   */
  rewrap(key: WrappedKey, arn: string): Promise<Buffer>;
}

export interface RewrapParts {
  store: Pick<DataKeyStore, 'take' | 'rewrapped'>;
  wrapping: Pick<DataKeyWrapping, 'rewrap'>;
  /** The KMS key to move to, as `wanted` said. */
  arn: string;
  actor: Actor;
  /** Keys of one transaction; default 100. */
  batch?: number;
  /** Keys under way at one time; default 4. Secrets Manager takes 50 of these calls a second. */
  parallel?: number;
  /** After each batch. */
  onProgress?: (sum: Rewrapped) => Promise<void> | void;
}

export interface Rewrapped {
  /** Under the wanted key now. */
  rewrapped: number;
  /** Deleted, or moved by somebody else, while they were under way. */
  overtaken: number;
  /** How many stayed, by AWS's name for the reason. */
  failed: Readonly<Record<string, number>>;
}

const BATCH = 100;
const PARALLEL = 4;

/**
 * Wraps every data key that is under another KMS key by the wanted one. In order of merchant, and where to go on stands in the rows: stop it,
 * start it again, start it twice. A batch in which nothing works ends it.
 * @throws what the database throws.
 */
export async function rewrapDataKeys(parts: RewrapParts): Promise<Rewrapped> {
  const { store, arn, actor, batch = BATCH, onProgress } = parts;
  const sum = { rewrapped: 0, overtaken: 0, failed: {} as Record<string, number> };
  let keys = await store.take(arn, undefined, batch);
  while (keys.length > 0) {
    const { done, reasons } = await rewrapBatch(parts, keys);
    const written = done.length === 0 ? 0 : await store.rewrapped(actor, arn, done);
    sum.rewrapped += written;
    sum.overtaken += done.length - written;
    for (const reason of reasons) sum.failed[reason] = (sum.failed[reason] ?? 0) + 1;
    await onProgress?.(sum);
    if (done.length === 0) break;
    // Behind the last one: those that failed stay where they are, and must not keep the others waiting.
    keys = await store.take(arn, keys.at(-1), batch);
  }
  return sum;
}

async function rewrapBatch({ wrapping, arn, parallel = PARALLEL }: RewrapParts, keys: WrappedKey[]) {
  const done: RewrappedKey[] = [];
  const reasons: string[] = [];
  const waiting = keys.values();
  const work = async () => {
    for (const key of waiting) {
      try {
        done.push({ ...key, after: await wrapping.rewrap(key, arn) });
      } catch (error) {
        if (!(error instanceof ServiceError)) throw error;
        reasons.push(reasonOf(error));
      }
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  return { done, reasons };
}
