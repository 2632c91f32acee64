import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { rotationReply, toRotationReply } from './rotation-schema.ts';
import { credentialIdOf } from './schema.ts';

export const getRotation = merchantEndpoint({
  summary: 'How the latest rotation of a stored credential stands',
  reply: {
    status: 200,
    description: 'The rotation; null when there was none',
    schema: z.object({ rotation: rotationReply.nullable() }),
  },
  handle: async ({ services, merchant, params }) => {
    const rotation = await services.rotations.latest(merchant.id, credentialIdOf(params['cid']));
    return { status: 200, body: { rotation: rotation === undefined ? null : toRotationReply(rotation) } };
  },
});
