import { z } from 'zod';
import { merchantNotFound } from '../../../auth/permissions.ts';
import { ServiceError } from '../../../domain/errors.ts';
import { invocationLogsSchema } from '../../../domain/invocation-logs.ts';
import { planSpecSchema } from '../../../domain/limits.ts';
import { operatorEndpoint } from '../../route.ts';
import { merchantIdOf } from '../../steps/load-merchant.ts';
import { merchantLimits } from '../limits/schema.ts';

const body = z
  .strictObject({
    plan: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,62}(@[1-9]\d{0,8})?$/, 'must be id or id@version')
      .optional(),
    status: z.enum(['active', 'suspended'], 'must be active or suspended').optional(),
    override: z
      .strictObject({
        spec: planSpecSchema,
        endsAt: z.iso.datetime({ offset: true }).nullable().default(null),
      })
      .nullable()
      .optional(),
    invocationLogs: invocationLogsSchema.nullable().optional(),
  })
  .refine((value) => Object.keys(value).length > 0, 'changes nothing');

export const updateMerchant = operatorEndpoint<z.output<typeof body>>({
  summary:
    "Change a merchant's plan (id: its latest version, or id@version), status, the override of its plan (null: none), or where its model invocation logs are (null: nowhere)",
  body,
  reply: { status: 200, description: 'The limits that are now in force', schema: merchantLimits },
  handle: async ({ services, actor, params, body: { plan, ...change } }) => {
    const merchantId = merchantIdOf(params['id'] ?? '');
    const [planId, version] = plan?.split('@') ?? [];
    const outcome = await services.limitStore.changeMerchant(actor, merchantId, {
      ...change,
      ...(planId !== undefined && { planId }),
      ...(version !== undefined && { planVersion: Number(version) }),
    });
    if (outcome === 'merchant') throw merchantNotFound();
    if (outcome === 'plan')
      throw new ServiceError(
        'plan.not_found',
        'There is no such plan, or no such version of it. GET /api/ops/plans lists them.',
      );
    if (outcome === 'credential')
      throw new ServiceError(
        'credential.not_found',
        'The merchant has no such active credential of kind access-key or assume-role to read its logs with.',
      );
    if (change.status === 'suspended') services.vault.forget(merchantId);
    return { status: 200, body: await services.limitStore.inForce(merchantId) };
  },
});
