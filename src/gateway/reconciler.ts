import type { LoggedCall, LogReader } from '../bedrock/invocation-logs.ts';
import { LogsUnreadable } from '../bedrock/invocation-logs.ts';
import type { RoleSessions } from '../credentials/role-sessions.ts';
import { logPolicies } from '../credentials/session-policy.ts';
import type { Vault } from '../credentials/vault.ts';
import type { AccessKey } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import type { CallId, CredentialId, MerchantId } from '../domain/ids.ts';
import type { InvocationLogs } from '../domain/invocation-logs.ts';
import type { CallOutcome } from '../domain/usage.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { UnknownStore } from '../ledger/unknown-store.ts';
import { estimateOf } from '../ledger/unknown.ts';
import type { UnknownCall } from '../ledger/unknown.ts';
import type { Merchants } from '../merchants/merchants.ts';
import type { Logger } from '../observability/logger.ts';

export interface ReconcilerParts {
  unknown: Pick<UnknownStore, 'claim'>;
  ledger: Pick<Ledger, 'resolveUnknown'>;
  merchants: Pick<Merchants, 'find'>;
  vault: Pick<Vault, 'current' | 'open' | 'recordAsking'>;
  roleSessions: Pick<RoleSessions, 'signerOf'>;
  logGroup: LogReader;
  logBucket: LogReader;
  logger: Logger;
}

export interface Round {
  looked: number;
  resolved: number;
}

const CLAIMED_AT_ONCE = 200;
const ROUND_MAX = 10;
/** One slow log must not keep those of other merchants waiting. */
const MERCHANTS_AT_ONCE = 4;
const LOOK_UP_MS = 120_000;
/** Clocks of AWS and of the database may differ, before; and after the longest call the record takes a while to appear. */
const EARLIER_MS = 60_000;
const LATER_MS = 15 * 60_000;
const ACTOR = { subject: 'system', requestId: 'reconcile' };

/**
 * Finds out what became of calls whose end nobody saw: from the merchant's own invocation logs while there is time, then by its plan's policy.
 * Any number of replicas may run it: each call is claimed by one, and the ledger resolves it once.
 */
export class Reconciler implements AsyncDisposable {
  readonly #parts: ReconcilerParts;
  readonly #stop = new AbortController();
  #running: Promise<Round> | undefined;

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
  }

  /** One at a time: while one runs, others are that one. @throws ServiceError ledger.unavailable */
  round(): Promise<Round> {
    this.#running ??= this.#round().finally(() => (this.#running = undefined));
    return this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running?.catch(() => undefined);
  }

  async #round(): Promise<Round> {
    const round: Round = { looked: 0, resolved: 0 };
    for (let claims = 0; claims < ROUND_MAX && !this.#stop.signal.aborted; claims += 1) {
      const calls = await this.#parts.unknown.claim(CLAIMED_AT_ONCE);
      const groups = groupBy(calls, ({ merchantId }) => merchantId);
      const work = groups.values();
      await Promise.all(
        Array.from({ length: MERCHANTS_AT_ONCE }, async () => {
          for (const group of work) round.resolved += await this.#reconcile(group);
        }),
      );
      round.looked += calls.length;
      if (calls.length < CLAIMED_AT_ONCE) break;
    }
    return round;
  }

  /** @param calls of one merchant. @returns how many were resolved. */
  async #reconcile(calls: readonly UnknownCall[]): Promise<number> {
    const logged = await this.#lookUp(calls);
    if (this.#stop.signal.aborted) return 0;
    const moves = calls.map(async (call) => {
      const outcome = outcomeOf(call, logged.get(call.id));
      return outcome !== undefined && this.#parts.ledger.resolveUnknown(call.merchantId, call.id, outcome);
    });
    return (await Promise.all(moves)).filter(Boolean).length;
  }

  /** What the merchant's logs say. What cannot be read is told in our own log and counts as not found. */
  async #lookUp(calls: readonly UnknownCall[]): Promise<Map<CallId, LoggedCall>> {
    const found = new Map<CallId, LoggedCall>();
    const [{ merchantId, logs } = {}] = calls;
    if (merchantId === undefined || logs === undefined) return found;
    try {
      const reader = await this.#readerOf(merchantId, logs);
      // Logs are in the account of the call; those of another account are not ours to look for.
      const own = calls.filter(({ accountId = reader.accountId }) => accountId === reader.accountId);
      for (const [region, group] of groupBy(own, (call) => call.region)) {
        const source = 'cloudWatch' in logs ? this.#parts.logGroup : this.#parts.logBucket;
        const answer = await source.find({
          ...reader,
          logs,
          region,
          calls: group.map(toWanted),
          signal: this.#signal(),
        });
        for (const [id, call] of answer) found.set(id, call);
      }
    } catch (error) {
      if (!this.#stop.signal.aborted)
        this.#parts.logger.warn('invocation logs could not be read: looked at again later', {
          merchantId,
          calls: calls.length,
          reason: reasonOf(error),
        });
    }
    return found;
  }

  /**
   * Asked before each look-up: that it is made is on record, and the merchant and its credential are active.
   * @throws ServiceError as Vault.recordAsking, Vault.open and RoleSessions.signerOf; LogsUnreadable when the merchant has no credential that can read.
   */
  async #readerOf(
    merchantId: MerchantId,
    logs: InvocationLogs,
  ): Promise<{ credential: AccessKey; accountId: string }> {
    const { merchants, roleSessions, vault } = this.#parts;
    const credentialId =
      (logs.credentialId as CredentialId | undefined) ??
      (await merchants.find(merchantId))?.defaultCredentialId;
    if (credentialId === undefined) throw new LogsUnreadable('no default credential');
    const { version, accountId, region } = await vault.current(merchantId, credentialId, true);
    await vault.recordAsking(ACTOR, merchantId, credentialId, 'logs');
    const material = await vault.open(ACTOR, merchantId, credentialId, version);
    const place = { merchantId, credentialId, version };
    // Sessions for calls may not read logs, and those for logs may not call.
    const { credential } = await roleSessions.signerOf(place, material, region, logPolicies(logs));
    if (credential.kind !== 'access-key' || accountId === undefined)
      throw new LogsUnreadable('the credential is neither an access key nor a role');
    return { credential, accountId };
  }

  #signal(): AbortSignal {
    return AbortSignal.any([this.#stop.signal, AbortSignal.timeout(LOOK_UP_MS)]);
  }
}

function toWanted({ id, awsRequestId, createdAtMs, deadlineMs }: UnknownCall) {
  return { id, awsRequestId, fromMs: createdAtMs - EARLIER_MS, toMs: deadlineMs + LATER_MS };
}

/** What the call counts as now; undefined: still unknown. */
function outcomeOf(call: UnknownCall, logged: LoggedCall | undefined): CallOutcome | undefined {
  const upstream = {};
  if (logged?.tokens !== undefined) {
    const usage = {
      tokens: logged.tokens,
      images: logged.failed ? 0 : call.hold.images,
      provenance: 'log' as const,
    };
    return { state: 'settled', usage, upstream };
  }
  // An error without counts: the model did not run. Unless something of its answer came.
  if (logged?.failed === true && call.seen === undefined)
    return { state: 'void', reason: 'AWS logged an error', upstream };
  if (!call.overdue || call.whenUnknown === 'keep') return undefined;
  return { state: 'settled', usage: estimateOf(call, call.whenUnknown), upstream };
}

function reasonOf(error: unknown): string {
  if (error instanceof LogsUnreadable) return error.reason;
  return error instanceof ServiceError ? error.code : 'unknown error';
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
