import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import type { IdentityCheck } from '../credentials/identity.ts';
import { RoleProof } from '../credentials/role-proof.ts';
import { RoleSessions } from '../credentials/role-sessions.ts';
import type { RoleSessionsOptions } from '../credentials/role-sessions.ts';
import { RoleStore } from '../credentials/role-store.ts';
import { AwsRoleAssumer } from '../credentials/roles-aws.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

/** Merchants' roles: who assumes them, what is proven of them, the sessions in use. */
export function buildRoles(
  config: Config,
  secrets: Secrets,
  { monotonic, logger, database }: Base,
  { identity, store }: { identity: IdentityCheck } & Pick<RoleSessionsOptions, 'store'>,
) {
  const assumer = new AwsRoleAssumer({
    regions: config.enabledRegions,
    homeRegion: config.awsRegion,
    privateNames: config.privateEndpoints,
    requestTimeoutMs: config.vaultTimeoutMs,
    ...(config.endpointSts !== undefined && { endpoint: config.endpointSts }),
    ...(secrets.serviceCredential && { serviceCredentials: secrets.serviceCredential }),
    ...(config.servicePrincipalArn !== undefined && { principalArn: config.servicePrincipalArn }),
  });
  const roleSessions = new RoleSessions({
    assumer,
    store,
    clock: monotonic,
    max: config.openedCredentialsMax,
    onRefreshFailed: (error) => {
      logger.warn('session of a role not renewed: tried again', errorFields(error));
    },
  });
  const roleStore = new RoleStore(database);
  return {
    assumer,
    roleSessions,
    roleStore,
    roleProof: new RoleProof({ assumer, identity, store: roleStore, clock: monotonic }),
  };
}
