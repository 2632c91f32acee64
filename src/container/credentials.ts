import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { CredentialStore } from '../credentials/credential-store.ts';
import { AwsIamKeys } from '../credentials/iam-keys-aws.ts';
import { AwsIdentityCheck } from '../credentials/identity-aws.ts';
import { OpenedCache } from '../credentials/opened-cache.ts';
import { CredentialResolver } from '../credentials/resolve.ts';
import { RoleActivation } from '../credentials/role-activation.ts';
import { Sessions } from '../credentials/sessions.ts';
import { AwsSecretVault } from '../credentials/vault-aws.ts';
import { Vault } from '../credentials/vault.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';
import { buildRoles } from './roles.ts';

/** With which keys: the vault, sessions, and the one choice between them. */
export function buildCredentials(config: Config, secrets: Secrets, base: Base) {
  const { clock } = base;
  const store = new CredentialStore(base.database);
  const parts = buildVaultParts(config, secrets, base);
  const { identity, sealed, opened, onLeftover } = parts;
  const { assumer, roleSessions, roleStore, roleProof } = buildRoles(config, secrets, base, identity);
  const vault = new Vault({
    store,
    secrets: sealed,
    identity,
    opened,
    roleSessions,
    roleProof,
    clock,
    onLeftover,
  });
  const roles = new RoleActivation({
    store,
    roleStore,
    proof: roleProof,
    assumer,
    secrets: sealed,
    regions: config.enabledRegions,
    forget: vault.forget.bind(vault),
    onLeftover,
  });
  const sessions = new Sessions({
    key: secrets.sessionKey,
    ...(secrets.sessionKeyPrevious && { previousKeys: [secrets.sessionKeyPrevious] }),
    clock,
  });
  const { serviceDefaultRegion: region } = config;
  const resolver = new CredentialResolver({
    vault,
    sessions,
    roleSessions,
    identity,
    clock,
    regions: config.enabledRegions,
    ...(config.serviceDefaultsEnabled &&
      secrets.serviceDefault &&
      region && { serviceDefault: { accessKey: secrets.serviceDefault, region } }),
  });
  const iamKeys = buildIamKeys(config, base);
  const closers = [resolver, roleSessions, assumer, opened, sealed];
  return { iamKeys, vault, roles, roleSessions, sessions, resolver, closers };
}

/** Who asks AWS whose keys these are, where secrets lie, and which are open. */
function buildVaultParts(config: Config, secrets: Secrets, { clock, logger }: Base) {
  const {
    endpointSts: sts,
    endpointBedrock: bedrock,
    endpointKms: kms,
    endpointSecretsManager: secretsManager,
  } = config;
  const identity = new AwsIdentityCheck({
    regions: config.enabledRegions,
    endpoints: { ...(sts && { sts }), ...(bedrock && { bedrock }) },
  });
  const sealed = new AwsSecretVault({
    region: config.awsRegion,
    environment: config.deployment,
    kmsKeyId: config.vaultKmsKeyId,
    endpoints: { ...(kms && { kms }), ...(secretsManager && { secretsManager }) },
    ...(secrets.serviceCredential && { serviceCredentials: secrets.serviceCredential }),
  });
  const opened = new OpenedCache({
    clock,
    max: config.openedCredentialsMax,
    ttlMs: config.openedCredentialsTtlMs,
  });
  const onLeftover = (secretName: string, cause: unknown): void => {
    logger.warn('ciphertext left behind in Secrets Manager: check before removing it', {
      secretName,
      ...errorFields(cause),
    });
  };
  return { identity, sealed, opened, onLeftover };
}

/** The access keys of merchants' own IAM users. */
function buildIamKeys({ endpointIam: endpoint }: Config, { clock }: Pick<Base, 'clock'>) {
  return new AwsIamKeys({ clock, ...(endpoint && { endpoint }) });
}
