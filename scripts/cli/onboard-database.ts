import { randomUUID } from 'node:crypto';
import { userInfo } from 'node:os';
import type { Secrets } from '../../src/config/secrets.ts';
import type { Config } from '../../src/config/settings.ts';
import { nothingDone, ServiceError } from '../../src/domain/errors.ts';
import { onboardMerchant } from '../../src/http/handlers/ops/create-merchant.ts';
import { newLogger } from '../../src/observability/logger.ts';
import type { Service } from '../../src/service.ts';
import { notActivated } from './activate-role.ts';
import type { Activated, ActivateOrder } from './activate-role.ts';
import type { Order } from './onboard-order.ts';
import { onboardedReply, refusedBy } from './onboard-result.ts';
import type { Onboarded } from './onboard-result.ts';
import { Failure } from './run.ts';

/**
 * The service of this configuration, built but not listening. What it logs goes to stderr.
 * @throws Failure when it cannot be built; nothing was written then.
 */
export async function buildService(config: Config, secrets: Secrets): Promise<Service> {
  // Only here: it loads every AWS client, which --help and --url have no use for.
  const { build } = await import('../../src/container.ts');
  const logger = newLogger('warn', { write: (line) => void process.stderr.write(line) });
  try {
    return await build(config, secrets, { logger });
  } catch (error) {
    const known = nothingDone(error);
    const reason = known instanceof ServiceError ? `${known.code}\n  ${known.detail}` : messageOf(error);
    throw new Failure(`Not onboarded, nothing was written: ${reason}`);
  }
}

/**
 * Onboards with the rooms of the service itself, as its route does.
 * @throws Failure
 */
export async function onboardInDatabase(
  service: Pick<Service, 'services'>,
  order: Order,
): Promise<Onboarded> {
  const actor = { subject: `cli:${userName()}`, requestId: randomUUID() };
  try {
    const { role, ...onboarded } = await onboardMerchant(service.services, actor, order);
    return {
      ...onboarded,
      credentialId: onboarded.credentialId ?? null,
      role: onboardedReply.shape.role.parse(role),
    };
  } catch (error) {
    const { code, detail, options } =
      error instanceof ServiceError
        ? error
        : new ServiceError('internal', 'Something failed that should not.', { cause: error });
    const { requestId } = actor;
    const { problems } = options;
    throw refusedBy({ code, detail, requestId, ...(problems && { problems: [...problems] }) }, order.id);
  }
}

/**
 * Activates a role with the rooms of the service itself, as its route does.
 * @throws Failure
 */
export async function activateInDatabase(
  { services }: Pick<Service, 'services'>,
  { merchantId, credentialId, roleArn }: ActivateOrder,
): Promise<Activated> {
  const actor = { subject: `cli:${userName()}`, requestId: randomUUID() };
  try {
    const role = { roleArn, makeDefault: true };
    const { state, accountId = '' } = await services.roles.activate(actor, merchantId, credentialId, role);
    return { state, accountId };
  } catch (error) {
    const { code, detail, options } =
      error instanceof ServiceError
        ? error
        : new ServiceError('internal', 'Something failed that should not.', { cause: error });
    const { problems, extra } = options;
    const { requestId } = actor;
    throw notActivated({ code, detail, requestId, ...(problems && { problems: [...problems] }), ...extra });
  }
}

/** Of `build`, whose own messages say how to mend it. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'unknown reason';
}

/** For the audit trail: who ran this. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return 'unknown';
  }
}
