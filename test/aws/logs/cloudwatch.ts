import { z } from 'zod';
import { amzJson } from '../wire/answer.ts';
import { AwsError } from '../wire/errors.ts';
import { parseBody } from '../wire/body.ts';
import type { Call, World } from '../call.ts';
import type { Answer } from '../wire/answer.ts';

const shape = z.looseObject({
  logGroupName: z.string(),
  logStreamNames: z.array(z.string()).optional(),
  filterPattern: z.string().max(1024),
  startTime: z.number(),
  endTime: z.number(),
  nextToken: z.string().optional(),
});

/** The one kind of JSON filter that is understood: members of requestMetadata that equal a text, any of them. */
const TERM = /^\(?\$\.requestMetadata\.(\w+) = "([^"]*)"\)?$/;
const STREAM = 'aws/bedrock/modelinvocations';

/** As AWS may, answers first with an empty page: whoever stops there finds nothing. */
function filterLogEvents({ request, signer }: Call, { logs }: World): Answer {
  const asked = parseBody(shape, request.body);
  const logging = logs.logGroup(signer, asked.logGroupName);
  if (logging === undefined || asked.logStreamNames?.some((name) => name !== STREAM) === true)
    throw new AwsError('ResourceNotFoundException', 'The specified log group does not exist.', {
      status: 400,
    });
  const terms = termsOf(asked.filterPattern);
  if (asked.nextToken === undefined) return amzJson({ events: [], nextToken: 'the-rest' });
  const events = logs
    .records(logging)
    .filter(({ at, json }) => {
      const { requestMetadata = {} } = JSON.parse(json) as { requestMetadata?: Record<string, string> };
      const time = Date.parse(at);
      return (
        time >= asked.startTime &&
        time <= asked.endTime &&
        terms.some(([name, value]) => requestMetadata[name] === value)
      );
    })
    .map(({ at, json }) => ({ logStreamName: STREAM, timestamp: Date.parse(at), message: json }));
  return amzJson({ events, searchedLogStreams: [] });
}

function termsOf(pattern: string): [string, string][] {
  const [, inner = ''] = /^\{ (.*) \}$/.exec(pattern) ?? [];
  return inner.split(' || ').map((text) => {
    const [, name = '', value = ''] = TERM.exec(text) ?? [];
    if (name === '')
      throw new AwsError('InvalidParameterException', 'Invalid filter pattern', { status: 400 });
    return [name, value];
  });
}

export const CLOUDWATCH_LOGS_OPERATIONS: Readonly<Record<string, (call: Call, world: World) => Answer>> = {
  FilterLogEvents: filterLogEvents,
};
