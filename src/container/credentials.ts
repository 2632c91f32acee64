import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { CredentialKeeper } from '../credentials/credential-keeper.ts';
import { AwsIamKeys } from '../credentials/iam-keys-aws.ts';
import { AwsPermissionProbes } from '../credentials/permission-probes-aws.ts';
import { CredentialResolver } from '../credentials/resolve.ts';
import { RoleActivation } from '../credentials/role-activation.ts';
import { Sessions } from '../credentials/sessions.ts';
import { Vault } from '../credentials/vault.ts';
import type { Base } from './base.ts';
import { buildRoles } from './roles.ts';
import { buildRotation } from './rotation.ts';
import { buildVaultParts } from './vault-parts.ts';

/** With which keys: the vault, roles, sessions, and the one choice between them. */
export function buildCredentials(config: Config, secrets: Secrets, base: Base) {
  const { clock, audit } = base;
  const { enabledRegions: regions } = config;
  const parts = buildVaultParts(config, secrets, base);
  const { identity, opened } = parts;
  const { assumer, roleSessions, roleStore, roleProof } = buildRoles(config, secrets, base, parts);
  const vault = new Vault({ ...parts, roleSessions });
  const credentials = new CredentialKeeper({ ...parts, audit, roleProof, vault });
  const roles = new RoleActivation({
    ...parts,
    audit,
    roleStore,
    proof: roleProof,
    assumer,
    regions,
    forget: vault.forget.bind(vault),
  });
  const { sessionKey: key, sessionKeyPrevious: previous } = secrets;
  const sessions = new Sessions({ key, ...(previous && { previousKeys: [previous] }), clock });
  const resolver = new CredentialResolver({
    vault,
    sessions,
    roleSessions,
    identity,
    audit,
    clock,
    regions,
    ...serviceDefaultOf(config, secrets),
  });
  const iamKeys = buildIamKeys(config, base);
  const probes = new AwsPermissionProbes({
    endpoint: config.endpointBedrock,
    privateNames: config.privateEndpoints,
  });
  const rotating = { ...parts, credentials: parts.store, vault, probes, iamKeys };
  const { rotations, rotationWorker } = buildRotation(config, base, rotating);
  const closers = [rotationWorker, resolver, roleSessions, assumer, opened, parts.secrets];
  return {
    vault,
    credentials,
    roles,
    roleSessions,
    sessions,
    resolver,
    identity,
    leftovers: parts.leftovers,
    rotations,
    rotationWorker,
    closers,
  };
}

/** The access keys of merchants' own IAM users. */
function buildIamKeys(
  { endpointIam: endpoint, privateEndpoints: privateNames }: Config,
  { clock }: Pick<Base, 'clock'>,
) {
  return new AwsIamKeys({ clock, privateNames, ...(endpoint && { endpoint }) });
}

/** The service's own Bedrock account, where the settings have one. */
function serviceDefaultOf(
  { serviceDefaultsEnabled, serviceDefaultRegion: region }: Config,
  { serviceDefault: accessKey }: Secrets,
) {
  if (!serviceDefaultsEnabled || accessKey === undefined || region === undefined) return {};
  return { serviceDefault: { accessKey, region } };
}
