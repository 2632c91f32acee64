import { corrupted, errorFrame, exceptionFrame } from './wire/event-stream.ts';
import type { FaultAction } from './faults.ts';
import type { JournalEntry, Outcome } from './journal.ts';
import type { StreamAnswer, UnaryAnswer } from './wire/answer.ts';
import type { Reply } from './wire/reply.ts';

/** Waits or breaks off while the client has nothing yet. @throws ClientGone */
export async function beforeHeaders(fault: FaultAction, reply: Reply): Promise<Outcome | undefined> {
  if (fault.reset) {
    await reply.reset();
    return 'cut';
  }
  if (fault.beforeHeadersHangMs) await reply.pause(fault.beforeHeadersHangMs);
  if (fault.hangHeaders) await reply.hang();
  return undefined;
}

/** Sends a whole answer, or half of it when the fault says so. @throws ClientGone */
export async function playUnary(answer: UnaryAnswer, fault: FaultAction, reply: Reply): Promise<Outcome> {
  reply.head(answer.status, { ...answer.headers, 'content-length': String(answer.body.length) });
  if (fault.cutBody) {
    await reply.write(answer.body.subarray(0, Math.floor(answer.body.length / 2)));
    await breakOff(fault, reply);
    return 'cut';
  }
  await reply.write(answer.body);
  reply.end();
  return fault.status === undefined ? 'completed' : 'faulted';
}

/** Sends frame after frame, with the fault's surprises in between. @throws ClientGone */
export async function playStream(
  answer: StreamAnswer,
  fault: FaultAction,
  reply: Reply,
  entry: JournalEntry,
): Promise<Outcome> {
  reply.head(answer.status, answer.headers);
  for (const frame of answer.frames) {
    const broken = await surprise(fault, reply, entry.eventsSent, frame);
    if (broken) return broken;
    if (fault.eventDelayMs) await reply.pause(fault.eventDelayMs);
    await reply.write(fault.corruptCrcAtEvent === entry.eventsSent ? corrupted(frame) : frame);
    entry.eventsSent += 1;
  }
  const broken = await surprise(fault, reply, entry.eventsSent, Buffer.alloc(0));
  entry.usageReported = answer.usage !== undefined;
  if (broken) return broken;
  reply.end();
  return fault.corruptCrcAtEvent === undefined ? 'completed' : 'faulted';
}

/** What the fault does once `index` frames are out; an outcome when that was the end of the stream. */
async function surprise(
  fault: FaultAction,
  reply: Reply,
  index: number,
  next: Buffer,
): Promise<Outcome | undefined> {
  if (fault.stallAtEvent === index)
    await (fault.stallMs === undefined ? reply.hang() : reply.pause(fault.stallMs));
  if (fault.cutAtEvent === index) {
    if (fault.midFrame) await reply.write(next.subarray(0, Math.ceil(next.length / 2)));
    await breakOff(fault, reply);
    return 'cut';
  }
  const last = finalFrame(fault, index);
  if (last === undefined) return undefined;
  await reply.write(last);
  reply.end();
  return 'faulted';
}

/** The frame after which the fault ends the stream in order; empty for a clean end without one. */
function finalFrame(fault: FaultAction, index: number): Buffer | undefined {
  const message = fault.message ?? 'The stand-in was told to fail here.';
  if (fault.exceptionAtEvent === index)
    return exceptionFrame(fault.exceptionType ?? 'internalServerException', message);
  if (fault.errorFrameAtEvent === index) return errorFrame(fault.type ?? 'InternalError', message);
  return fault.endCleanlyAtEvent === index ? Buffer.alloc(0) : undefined;
}

async function breakOff(fault: FaultAction, reply: Reply): Promise<void> {
  await (fault.cutBy === 'stream' ? reply.reset() : reply.cut());
}
