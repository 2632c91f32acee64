import { setTimeout as sleep } from 'node:timers/promises';
import { converseBody } from '../support/people.ts';
import { MODEL } from './town.ts';
import type { Citizen, Town } from './town.ts';

const OPERATIONS = ['invoke', 'converse', 'converse-stream', 'invoke-with-response-stream'] as const;

/** What the callers saw. */
export interface LoadResult {
  calls: number;
  /** Status and text of those that were not answered in full. Must stay empty. */
  failed: string[];
  /** Cut because the replica was killed under them. */
  cut: number;
}

/** Calls without a pause, each caller one at a time, on whichever replica lives. */
export class Load {
  readonly result: LoadResult = { calls: 0, failed: [], cut: 0 };
  /** Replicas that are about to be killed, or are dead. */
  readonly avoided = new Set<number>();
  readonly #town: Town;
  readonly #citizens: readonly Citizen[];
  readonly #callers: Promise<void>[];
  #over = false;

  constructor(town: Town, citizens: readonly Citizen[], callers: number) {
    this.#town = town;
    this.#citizens = citizens;
    // Streams outlive rotations.
    for (const operation of ['ConverseStream', 'InvokeModelWithResponseStream'])
      town.standIn.fault({ operation, eventDelayMs: 15, times: 'always' });
    this.#callers = Array.from({ length: callers }, (_, index) => this.#call(index));
  }

  async end(): Promise<void> {
    this.#over = true;
    await Promise.all(this.#callers);
  }

  async #call(caller: number): Promise<void> {
    for (let round = caller; !this.#over; round += 1) {
      const operation = OPERATIONS[round % OPERATIONS.length] ?? 'invoke';
      const citizen = this.#citizens[(round + caller) % this.#citizens.length] as Citizen;
      const live = this.#town.replicas.map((_, index) => index).filter((index) => !this.avoided.has(index));
      const replica = live[(round >> 1) % live.length] ?? 0;
      const process = this.#town.replica(replica);
      this.result.calls += 1;
      const problem = await this.#answered(replica, citizen, operation).catch((error: unknown) =>
        String(error),
      );
      if (problem === undefined) continue;
      if (process.child.exitCode !== null || process.child.signalCode !== null) this.result.cut += 1;
      else this.result.failed.push(`${citizen.id} ${operation}: ${problem}`);
      await sleep(5);
    }
  }

  /** @returns what was wrong with the answer. */
  async #answered(replica: number, citizen: Citizen, operation: string): Promise<string | undefined> {
    const text = 'STAND_IN_WORDS=20 go on';
    const body = operation.startsWith('converse')
      ? converseBody(text, 60)
      : {
          anthropic_version: 'bedrock-2023-05-31',
          max_tokens: 60,
          messages: [{ role: 'user', content: text }],
        };
    const answer = await this.#town
      .at(replica, citizen)
      .raw('POST', `/model/${encodeURIComponent(MODEL)}/${operation}`, body);
    const bytes = Buffer.from(await answer.arrayBuffer()).toString('latin1');
    if (answer.status !== 200) return `${String(answer.status)} ${bytes.slice(0, 300)}`;
    if (bytes.includes(':exception-type')) return `broken stream: ${bytes.slice(-300)}`;
    if (operation === 'converse-stream' && !bytes.includes('messageStop')) return 'cut stream';
    return undefined;
  }
}
