import { z } from 'zod';
import { SERVICES } from './wire/errors.ts';
import { STAND_IN_HEADER } from './serve.ts';
import type { FaultRule } from './faults.ts';
import type { House } from './serve.ts';
import type { Reply } from './wire/reply.ts';
import type { AwsRequest } from './wire/request.ts';

export const CONTROL_PREFIX = '/_stand-in/';

const count = z.int().min(0).optional();
const flag = z.boolean().optional();
const text = z.string().optional();

/** FaultRule as JSON. Strict: a misspelt member would otherwise be a fault that never happens. */
const faultShape = z.strictObject({
  service: z.enum(SERVICES).optional(),
  operation: text,
  accessKeyId: text,
  modelId: text,
  pathIncludes: text,
  times: z.union([z.int().min(1), z.literal('always')]).optional(),
  status: z.int().min(400).max(599).optional(),
  type: text,
  message: text,
  headers: z.record(z.string(), z.string()).optional(),
  delayMs: count,
  beforeHeadersHangMs: count,
  hangHeaders: flag,
  reset: flag,
  exceptionAtEvent: count,
  exceptionType: text,
  errorFrameAtEvent: count,
  cutAtEvent: count,
  midFrame: flag,
  cutBy: z.enum(['connection', 'stream']).optional(),
  endCleanlyAtEvent: count,
  corruptCrcAtEvent: count,
  stallAtEvent: count,
  stallMs: count,
  eventDelayMs: count,
  cutBody: flag,
  executed: flag,
});

interface ControlAnswer {
  status: number;
  body: unknown;
}

/** The handle for other processes: reads the journal, registers and clears faults. It takes no credentials and is on loopback only. */
export async function control(request: AwsRequest, reply: Reply, house: House): Promise<void> {
  const { status, body } = controlAnswer(request, house);
  const bytes = Buffer.from(JSON.stringify(body));
  reply.head(status, {
    ...STAND_IN_HEADER,
    'content-type': 'application/json',
    'content-length': String(bytes.length),
  });
  await reply.write(bytes);
  reply.end();
}

function controlAnswer(request: AwsRequest, { journal, faults }: House): ControlAnswer {
  switch (`${request.method} ${request.path.slice(CONTROL_PREFIX.length)}`) {
    case 'GET health':
      return { status: 200, body: { status: 'ok', what: 'stand-in for AWS, for tests and demonstrations' } };
    case 'GET journal':
      return { status: 200, body: journal.entries };
    case 'DELETE journal':
      journal.clear();
      return { status: 200, body: {} };
    case 'POST faults':
      return addFault(request, (rule) => faults.add(rule));
    case 'DELETE faults':
      faults.clear();
      return { status: 200, body: {} };
    default:
      return {
        status: 404,
        body: { message: 'GET health | GET journal | DELETE journal | POST faults | DELETE faults' },
      };
  }
}

function addFault(request: AwsRequest, add: (rule: FaultRule) => void): ControlAnswer {
  let parsed: unknown;
  try {
    parsed = JSON.parse(request.body.toString('utf8'));
  } catch {
    return { status: 400, body: { message: 'not JSON' } };
  }
  const rule = faultShape.safeParse(parsed);
  if (!rule.success) return { status: 400, body: { message: z.prettifyError(rule.error) } };
  // Members that are absent from JSON are absent here too, never undefined.
  add(rule.data as FaultRule);
  return { status: 201, body: {} };
}
