import { z } from 'zod';
import { ROTATION_STATES } from '../../../credentials/rotation-state.ts';
import type { RotationRecord } from '../../../credentials/rotation-state.ts';
import type { Rotated } from '../../../credentials/rotation.ts';
import { credentialReply, toCredentialReply } from './schema.ts';

/** A rotation as a merchant sees it: numbers, times and words; no secret has a place here. */
export const rotationReply = z.object({
  version: z.int(),
  replaces: z.int(),
  state: z.enum(ROTATION_STATES),
  reason: z.string().nullable(),
  warnings: z.array(z.string()),
  startedAt: z.string(),
  promotedAt: z.string().nullable(),
  overlapUntil: z.string().nullable(),
  endedAt: z.string().nullable(),
});

export const rotatedReply = z.object({
  credential: credentialReply,
  rotation: rotationReply,
  warnings: z.array(z.string()),
});

export function toRotationReply(rotation: RotationRecord): z.infer<typeof rotationReply> {
  const { version, replaces, state } = rotation;
  return {
    version,
    replaces,
    state,
    reason: rotation.reason ?? null,
    warnings: [...rotation.warnings],
    startedAt: rotation.startedAt.toISOString(),
    promotedAt: rotation.promotedAt?.toISOString() ?? null,
    overlapUntil: rotation.overlapUntil?.toISOString() ?? null,
    endedAt: rotation.endedAt?.toISOString() ?? null,
  };
}

export function toRotatedReply({ credential, rotation }: Rotated): z.infer<typeof rotatedReply> {
  const reply = toRotationReply(rotation);
  return { credential: toCredentialReply(credential), rotation: reply, warnings: reply.warnings };
}
