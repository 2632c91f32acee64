import { merchantEndpoint } from '../../route.ts';
import { rotatedReply, toRotatedReply } from './rotation-schema.ts';
import { credentialIdOf } from './schema.ts';

export const rollBackCredential = merchantEndpoint({
  summary:
    'Go back to the key before the last rotation, while its overlap lasts. The newer one is destroyed at once',
  reply: { status: 200, description: 'The key before is in force again', schema: rotatedReply },
  handle: async ({ services, actor, merchant, params }) => {
    const rotated = await services.rotations.rollBack(actor, merchant.id, credentialIdOf(params['cid']));
    return { status: 200, body: toRotatedReply(rotated) };
  },
});
