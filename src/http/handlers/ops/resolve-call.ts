import { z } from 'zod';
import { ServiceError } from '../../../domain/errors.ts';
import type { CallId } from '../../../domain/ids.ts';
import { operatorEndpoint } from '../../route.ts';
import { reason } from '../../schemas.ts';
import { merchantIdOf } from '../../steps/load-merchant.ts';

const count = z.int('must be a whole number').min(0).max(1_000_000_000);
const body = z.discriminatedUnion('state', [
  z.strictObject({ state: z.literal('void'), reason }),
  z.strictObject({
    state: z.literal('settled'),
    reason,
    inputTokens: count,
    outputTokens: count,
    cacheReadTokens: count.default(0),
    cacheWrite5mTokens: count.default(0),
    cacheWrite1hTokens: count.default(0),
    images: z.int().min(0).max(1_000).default(0),
  }),
]);
type Body = z.output<typeof body>;

export const resolveCall = operatorEndpoint<Body>({
  summary: 'Decide what an unknown call was: void, or settled with these tokens',
  body,
  reply: {
    status: 200,
    description: 'The call is resolved',
    schema: z.object({ id: z.uuid(), state: z.enum(['void', 'settled']) }),
  },
  handle: async ({ services, actor, params, body: decided }) => {
    const merchantId = merchantIdOf(params['id'] ?? '');
    const { data: id } = z.uuid().safeParse(params['callId']);
    if (id === undefined) throw notFound();
    const outcome = await services.unknown.decide(actor, merchantId, id as CallId, toDecision(decided));
    if (outcome === 'missing') throw notFound();
    if (outcome !== 'done')
      throw new ServiceError(
        'call.not_unknown',
        `This call is ${outcome}, not unknown, and only an unknown call can be decided. Nothing was changed.`,
        { extra: { state: outcome } },
      );
    return { status: 200, body: { id, state: decided.state } };
  },
});

function toDecision(decided: Body) {
  if (decided.state === 'void') return decided;
  const { state, reason: why, images, ...counts } = decided;
  return {
    state,
    reason: why,
    images,
    tokens: {
      input: counts.inputTokens,
      output: counts.outputTokens,
      cacheRead: counts.cacheReadTokens,
      cacheWrite5m: counts.cacheWrite5mTokens,
      cacheWrite1h: counts.cacheWrite1hTokens,
    },
  };
}

function notFound(): ServiceError {
  return new ServiceError('call.not_found', 'The merchant has no such call. GET /usage/records lists them.');
}
