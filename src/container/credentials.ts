import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { CredentialStore } from '../credentials/credential-store.ts';
import { AwsIamKeys } from '../credentials/iam-keys-aws.ts';
import { AwsIdentityCheck } from '../credentials/identity-aws.ts';
import { OpenedCache } from '../credentials/opened-cache.ts';
import { AwsPermissionProbes } from '../credentials/permission-probes-aws.ts';
import { CredentialResolver } from '../credentials/resolve.ts';
import { Sessions } from '../credentials/sessions.ts';
import { AwsSecretVault } from '../credentials/vault-aws.ts';
import { Vault } from '../credentials/vault.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';
import { buildRotation } from './rotation.ts';

/** With which keys: the vault, sessions, and the one choice between them. */
export function buildCredentials(config: Config, secrets: Secrets, { clock, logger, database }: Base) {
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
  const store = new CredentialStore(database);
  const vault = new Vault({
    store,
    secrets: sealed,
    identity,
    opened,
    clock,
    onLeftover: (secretName, cause) => {
      logger.warn('ciphertext left behind in Secrets Manager: check before removing it', {
        secretName,
        ...errorFields(cause),
      });
    },
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
    identity,
    clock,
    regions: config.enabledRegions,
    ...(config.serviceDefaultsEnabled &&
      secrets.serviceDefault &&
      region && { serviceDefault: { accessKey: secrets.serviceDefault, region } }),
  });
  const iamKeys = buildIamKeys(config, { clock });
  const probes = new AwsPermissionProbes({ endpoint: bedrock });
  const rotating = { credentials: store, vault, secrets: sealed, identity, probes, iamKeys };
  const rotation = buildRotation(config, { logger, database }, { ...rotating, opened });
  const closers = [rotation.rotationWorker, resolver, opened, sealed];
  return { vault, sessions, resolver, ...rotation, closers };
}

/** The access keys of merchants' own IAM users. */
function buildIamKeys({ endpointIam: endpoint }: Config, { clock }: Pick<Base, 'clock'>) {
  return new AwsIamKeys({ clock, ...(endpoint && { endpoint }) });
}
