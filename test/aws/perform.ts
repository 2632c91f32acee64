import { resourcesOf } from './bedrock/iam-resources.ts';
import { authorize } from './identity/authorize.ts';
import { errorAnswer } from './wire/answer.ts';
import { AwsError, validationError } from './wire/errors.ts';
import { BODY_BYTES_MAX } from './wire/request.ts';
import type { World } from './call.ts';
import type { FaultAction } from './faults.ts';
import type { Signer } from './identity/key-ring.ts';
import type { Route } from './routes.ts';
import type { Answer, Usage } from './wire/answer.ts';
import type { AwsRequest } from './wire/request.ts';

export interface Visit {
  request: AwsRequest;
  route: Route;
  requestId: string;
  /** Who signed, or why the signature is not accepted. */
  signer: Signer | AwsError;
}

export interface Performance {
  answer: Answer;
  /** What AWS would bill, when a model ran: also when the answer, by a fault, is an error. */
  executed: Usage | undefined;
}

/** Carries the operation out, unless the fault comes first, and says what is to be answered. */
export function perform(visit: Visit, fault: FaultAction, world: World): Performance {
  const runs = fault.executed ?? (fault.status === undefined && fault.reset !== true);
  const shown = fault.status === undefined && fault.reset !== true;
  const real = runs || shown ? compute(visit, world) : undefined;
  return {
    answer: real && shown ? real : faultAnswer(visit, fault),
    executed: runs ? real?.usage : undefined,
  };
}

function faultAnswer(visit: Visit, fault: FaultAction): Answer {
  const {
    status = 500,
    type = 'InternalServerException',
    message = 'The stand-in was told to fail here.',
    headers = {},
  } = fault;
  return errorAnswer(visit.route.service, new AwsError(type, message, { status, headers }), visit.requestId);
}

/** The operation itself, or the error that AWS would give. */
function compute({ request, route, requestId, signer }: Visit, world: World): Answer {
  try {
    if (signer instanceof AwsError) throw signer;
    if (request.bodyState === 'too-large')
      throw validationError(`The request body is larger than ${String(BODY_BYTES_MAX)} bytes.`);
    if (!route.operate) throw unknownOperation(route);
    const resources = resourcesOf(route, signer, world.bedrock.owned);
    authorize(signer, route.service, route.operation, resources);
    if (route.service === 'bedrock-runtime') world.bedrock.access.check(route.resource ?? '', signer);
    return route.operate(
      { operation: route.operation, resource: route.resource, request, signer, requestId },
      world,
    );
  } catch (error) {
    return errorAnswer(route.service, asAwsError(error), requestId);
  }
}

function unknownOperation({ service, operation }: Route): AwsError {
  if (service === 'sts' || service === 'iam')
    return new AwsError('InvalidAction', `Could not find operation ${operation}`, { status: 400 });
  const rest = service === 'bedrock' || service === 'bedrock-runtime';
  return new AwsError('UnknownOperationException', `The stand-in knows no operation here (${operation}).`, {
    status: rest ? 404 : 400,
    namespace: 'coral',
  });
}

/** A defect of the stand-in itself is answered as such, with its stack: it must neither crash a test run nor look like AWS. */
export function asAwsError(error: unknown): AwsError {
  if (error instanceof AwsError) return error;
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new AwsError('InternalFailure', `Defect in the stand-in: ${text}`, { status: 500 });
}
