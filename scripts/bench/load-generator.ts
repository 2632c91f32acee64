import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Failure } from '../cli/run.ts';
import type { Hold, HoldReport, Job, Order, Paced, PacedReport, Report, Round } from './job.ts';
import { fromSource } from './processes.ts';

/** The load generator's process, as its orderer sees it. */
export class LoadGenerator implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #stopped: AbortSignal;
  readonly #ended: Promise<'ended'>;

  constructor(stopped: AbortSignal) {
    this.#stopped = stopped;
    this.#child = spawn(process.execPath, fromSource(new URL('load.ts', import.meta.url)), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      detached: true,
    });
    this.#ended = once(this.#child, 'exit').then(() => 'ended');
  }

  /** @throws Failure when a connection could not be opened; what fails later is counted in the round */
  async load(job: Job): Promise<Round> {
    const report = await this.#ask({ kind: 'load', job });
    if (report.kind !== 'round') throw new Failure('the load generator answered something else');
    return report.round;
  }

  /** @throws Failure when a connection could not be opened */
  async paced(order: Paced): Promise<PacedReport> {
    const report = await this.#ask({ kind: 'paced', paced: order });
    if (report.kind !== 'paced') throw new Failure('the load generator answered something else');
    return report;
  }

  /** Opens streams, calls `whileOpen` once all have begun, and waits for their end. */
  async hold(order: Hold, whileOpen: () => Promise<void>): Promise<HoldReport & { kind: 'done' }> {
    const report = await this.#ask({ kind: 'hold', hold: order });
    if (report.kind === 'done') return report;
    const ended = this.#next();
    await whileOpen();
    const done = await ended;
    if (done.kind !== 'done' || report.kind !== 'open')
      throw new Failure('the load generator answered something else');
    if (report.ended === 0 || done.errors > 0) return done;
    const firstError = `${String(report.ended)} streams were over before the last one had begun`;
    return { ...done, errors: report.ended, firstError };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  #ask(order: Order): Promise<Report> {
    this.#child.send(order);
    return this.#next();
  }

  async #next(): Promise<Report> {
    const message = once(this.#child, 'message', { signal: this.#stopped }) as Promise<[Report]>;
    const first = await Promise.race([message, this.#ended]);
    if (first === 'ended') throw new Failure('the load generator ended');
    const [report] = first;
    if (report.kind === 'failed') throw new Failure(`the load generator failed: ${report.message}`);
    return report;
  }
}
