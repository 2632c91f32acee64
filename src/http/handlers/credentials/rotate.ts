import { merchantEndpoint } from '../../route.ts';
import { rotatedReply, toRotatedReply } from './rotation-schema.ts';
import { credentialIdOf, materialOf, newMaterial } from './schema.ts';
import type { NewMaterial } from './schema.ts';

export const rotateCredential = merchantEndpoint<NewMaterial>({
  summary:
    'Put a new key in the place of a stored one, without downtime: it is sealed, tested and put in force; the one before may sign for a short overlap, and is then destroyed',
  body: newMaterial,
  reply: {
    status: 200,
    description: 'The new key is in force. An error says why not; the one before is in force then',
    schema: rotatedReply,
  },
  handle: async ({ services, actor, merchant, params, body }) => {
    const id = credentialIdOf(params['cid']);
    const rotated = await services.rotations.rotate(actor, merchant.id, id, materialOf(body));
    return { status: 200, body: toRotatedReply(rotated) };
  },
});
