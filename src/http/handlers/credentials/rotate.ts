import { z } from 'zod';
import { merchantEndpoint } from '../../route.ts';
import { rotatedReply, toRotatedReply } from './rotation-schema.ts';
import { credentialIdOf, materialOf, newMaterial } from './schema.ts';

const body = z.union(
  [newMaterial, z.strictObject({ mode: z.literal('iam') })],
  'must be {"mode": "iam"}, or the new key: its kind, and what belongs to that kind',
);

export const rotateCredential = merchantEndpoint<z.infer<typeof body>>({
  summary:
    'Put a new key in the place of a stored one, without downtime: it is sealed, tested and put in force; the one before may sign for a short overlap, and is then destroyed',
  body,
  reply: {
    status: 200,
    description: 'The new key is in force. An error says why not; the one before is in force then',
    schema: rotatedReply,
  },
  handle: async ({ services, actor, merchant, params, body: given }) => {
    const id = credentialIdOf(params['cid']);
    const rotated =
      'mode' in given
        ? await services.rotations.rotateAtIam(actor, merchant.id, id)
        : await services.rotations.rotate(actor, merchant.id, id, materialOf(given));
    return { status: 200, body: toRotatedReply(rotated) };
  },
});
