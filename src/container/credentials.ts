import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { CredentialStore } from '../credentials/credential-store.ts';
import { AwsIamKeys } from '../credentials/iam-keys-aws.ts';
import { LeftoverStore } from '../credentials/leftover-store.ts';
import { Leftovers } from '../credentials/leftovers.ts';
import { FreezeStore } from '../credentials/freeze-store.ts';
import { AwsIdentityCheck } from '../credentials/identity-aws.ts';
import { OpenedCache } from '../credentials/opened-cache.ts';
import { CredentialResolver } from '../credentials/resolve.ts';
import { Sessions } from '../credentials/sessions.ts';
import { AwsSecretVault } from '../credentials/vault-aws.ts';
import { Vault } from '../credentials/vault.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

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
    privateNames: config.privateEndpoints,
    requestTimeoutMs: config.vaultTimeoutMs,
  });
  const sealed = new AwsSecretVault({
    region: config.awsRegion,
    environment: config.deployment,
    kmsKeyId: config.vaultKmsKeyId,
    endpoints: { ...(kms && { kms }), ...(secretsManager && { secretsManager }) },
    privateNames: config.privateEndpoints,
    requestTimeoutMs: config.vaultTimeoutMs,
    ...(secrets.serviceCredential && { serviceCredentials: secrets.serviceCredential }),
  });
  const opened = new OpenedCache({
    clock,
    max: config.openedCredentialsMax,
    ttlMs: config.openedCredentialsTtlMs,
    staleMs: config.openedCredentialsStaleMs,
  });
  const leftoverStore = new LeftoverStore(database);
  const onLeftover = (secretName: string, cause: unknown) => {
    logger.warn('ciphertext left behind in Secrets Manager', { secretName, ...errorFields(cause) });
  };
  const vault = new Vault({
    store: new CredentialStore(database, { rotationDays: config.credentialRotationDays }),
    leftovers: leftoverStore,
    freezer: new FreezeStore(database),
    secrets: sealed,
    identity,
    opened,
    clock,
    onLeftover,
  });
  const leftovers = new Leftovers({
    store: leftoverStore,
    secrets: sealed,
    afterMs: config.leftoverSecretsAfterMs,
    onLeftover,
  });
  const { sessionKey: key, sessionKeyPrevious: previous } = secrets;
  const sessions = new Sessions({ key, ...(previous && { previousKeys: [previous] }), clock });
  const resolver = new CredentialResolver({
    vault,
    sessions,
    identity,
    clock,
    regions: config.enabledRegions,
    ...serviceDefaultOf(config, secrets),
  });
  const iamKeys = buildIamKeys(config, { clock });
  return { iamKeys, vault, sessions, resolver, identity, leftovers, closers: [resolver, opened, sealed] };
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
