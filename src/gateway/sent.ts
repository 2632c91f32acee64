import type { RuntimeReply } from '../bedrock/runtime.ts';
import type { UpstreamFacts } from '../domain/usage.ts';
import type { OpenCall } from '../ledger/ledger.ts';
import type { AnswerRecorder } from './kept-answers.ts';
import type { Lifeline } from './lifeline.ts';
import type { CallIdentity, PaidCall } from './paid-call.ts';

/** A call that has gone out: what reading, relaying and settling it share. */
export interface Sent {
  call: OpenCall;
  paid: PaidCall;
  /** Images that the call makes. */
  images: number;
  identity: CallIdentity;
  reply: RuntimeReply;
  lifeline: Lifeline;
  facts: UpstreamFacts;
  startedAtMs: number;
  /** Where the call carries an Idempotency-Key and AWS did not refuse it. */
  recorder?: AnswerRecorder | undefined;
}
