import { randomUUID } from 'node:crypto';
import { authenticate } from './identity/authenticate.ts';
import { asAwsError, perform } from './perform.ts';
import { beforeHeaders, playStream, playUnary } from './play.ts';
import { receiptOf } from './receipt.ts';
import { routeOf } from './routes.ts';
import { AwsError } from './wire/errors.ts';
import { ClientGone } from './wire/reply.ts';
import type { World } from './call.ts';
import type { FaultAction, FaultBook } from './faults.ts';
import type { Signer } from './identity/key-ring.ts';
import type { Journal, JournalEntry, Outcome } from './journal.ts';
import type { Visit } from './perform.ts';
import type { Route } from './routes.ts';
import type { Reply } from './wire/reply.ts';
import type { AwsRequest } from './wire/request.ts';

/** Says on every answer that AWS did not give it. */
export const STAND_IN_HEADER = { 'x-stand-in': 'merchant-bedrock-test' } as const;

export interface House {
  world: World;
  faults: FaultBook;
  journal: Journal;
}

/** One request from door to door: route, prove, journal, surprise, answer, journal. */
export async function serve(request: AwsRequest, reply: Reply, house: House): Promise<void> {
  const route = routeOf(request);
  const requestId = randomUUID();
  const signer = proveSigner(request, route, house.world);
  const entry = house.journal.receive(
    receiptOf(request, route, requestId, signer instanceof AwsError ? undefined : signer),
  );
  try {
    const aborted = request.bodyState === 'aborted';
    entry.outcome = aborted
      ? 'client-aborted'
      : await answer({ request, route, requestId, signer }, reply, entry, house);
  } catch (error) {
    if (!(error instanceof ClientGone)) throw error;
    entry.outcome = 'client-aborted';
  } finally {
    entry.answerBytes = reply.bytesSent;
    entry.answerSha256 = reply.bodySha256();
    if (reply.status !== undefined) entry.status = reply.status;
    house.journal.finish(entry);
  }
}

function proveSigner(request: AwsRequest, route: Route, world: World): Signer | AwsError {
  try {
    return authenticate(request, route.service, world.keys);
  } catch (error) {
    return asAwsError(error);
  }
}

async function answer(visit: Visit, reply: Reply, entry: JournalEntry, house: House): Promise<Outcome> {
  const fault = faultFor(visit, house);
  if (fault.delayMs) await reply.pause(fault.delayMs);
  if (fault.after) await Promise.race([fault.after, reply.hang()]);
  const { answer: given, executed } = perform(visit, fault, house.world);
  if (executed) {
    entry.executed = true;
    entry.usage = executed;
  }
  const broken = await beforeHeaders(fault, reply);
  if (broken) return broken;
  if (given.errorType !== undefined) entry.errorType = given.errorType;
  const headed = {
    ...given,
    headers: { ...given.headers, 'x-amzn-requestid': visit.requestId, ...STAND_IN_HEADER },
  };
  if (headed.kind === 'stream') return playStream(headed, fault, reply, entry);
  const outcome = await playUnary(headed, fault, reply);
  entry.usageReported = given.usage !== undefined && outcome === 'completed';
  return outcome;
}

function faultFor({ request, route, signer }: Visit, { faults }: House): FaultAction {
  if (signer instanceof AwsError) return {};
  const { service, operation, resource } = route;
  return (
    faults.take({
      service,
      operation,
      path: request.path,
      modelId: resource,
      accessKeyId: signer.accessKeyId,
    }) ?? {}
  );
}
