import { provenShape } from '../../../audit/checkpoint.ts';
import type { ProvenCheckpoint } from '../../../audit/checkpoint.ts';
import type { Actor } from '../../../domain/audit.ts';
import { ServiceError } from '../../../domain/errors.ts';
import type { MerchantId } from '../../../domain/ids.ts';
import { merchantEndpoint } from '../../route.ts';
import type { Services } from '../../services.ts';
import { readingOf } from './reading.ts';

export const checkpointReply = {
  status: 200,
  description:
    'Keep it: npm run audit:verify -- --checkpoint holds later exports against it. body is what the checkpoint says of all chains, signature (ECDSA_SHA_256, DER in base64) is over "mbk-checkpoint-v1", keyId and body, each on a line; leaf is where this chain stood, with its path to the root (hex, from below).',
  schema: provenShape,
};

export const auditCheckpoint = merchantEndpoint({
  summary: "The newest signed checkpoint of all audit chains, with the proof that this merchant's is in it",
  reply: checkpointReply,
  handle: async ({ services, merchant, actor }) => ({
    status: 200,
    body: await newestCheckpoint(services, actor, merchant.id),
  }),
});

/** Recorded and read. @throws ServiceError checkpoint.not_found */
export async function newestCheckpoint(
  { checkpoints }: Pick<Services, 'checkpoints'>,
  actor: Actor,
  chain: MerchantId,
): Promise<ProvenCheckpoint> {
  const { checkpoint } = await checkpoints.read(chain, readingOf(actor, chain, { what: 'checkpoint' }));
  if (checkpoint !== undefined) return checkpoint;
  throw new ServiceError(
    'checkpoint.not_found',
    'No signed checkpoint covers this audit trail yet. Where they are on, one is made each minute in which something happened; try again shortly.',
  );
}
