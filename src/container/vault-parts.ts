import type { Secrets } from '../config/secrets.ts';
import type { Config } from '../config/settings.ts';
import { CredentialStore } from '../credentials/credential-store.ts';
import { FreezeStore } from '../credentials/freeze-store.ts';
import { AwsIdentityCheck } from '../credentials/identity-aws.ts';
import { LeftoverStore } from '../credentials/leftover-store.ts';
import { Leftovers } from '../credentials/leftovers.ts';
import { OpenedCache } from '../credentials/opened-cache.ts';
import { AwsSecretVault } from '../credentials/vault-aws.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

/** What the vault works with: who asks AWS whose keys these are, where secrets and their rows lie, which are open, what was left behind. */
export function buildVaultParts(
  config: Config,
  { serviceCredential }: Secrets,
  { clock, logger, database }: Base,
) {
  const {
    endpointSts: sts,
    endpointBedrock: bedrock,
    endpointKms: kms,
    endpointSecretsManager: secretsManager,
  } = config;
  const secrets = new AwsSecretVault({
    region: config.awsRegion,
    environment: config.deployment,
    kmsKeyId: config.vaultKmsKeyId,
    endpoints: { ...(kms && { kms }), ...(secretsManager && { secretsManager }) },
    privateNames: config.privateEndpoints,
    requestTimeoutMs: config.vaultTimeoutMs,
    ...(serviceCredential && { serviceCredentials: serviceCredential }),
  });
  const onLeftover = (secretName: string, cause: unknown): void => {
    logger.warn('ciphertext left behind in Secrets Manager', { secretName, ...errorFields(cause) });
  };
  return {
    clock,
    store: new CredentialStore(database, { rotationDays: config.credentialRotationDays }),
    leftovers: new Leftovers({
      store: new LeftoverStore(database),
      secrets,
      onLeftover,
      afterMs: config.leftoverSecretsAfterMs,
    }),
    freezer: new FreezeStore(database),
    identity: new AwsIdentityCheck({
      regions: config.enabledRegions,
      endpoints: { ...(sts && { sts }), ...(bedrock && { bedrock }) },
      privateNames: config.privateEndpoints,
      requestTimeoutMs: config.vaultTimeoutMs,
    }),
    secrets,
    opened: new OpenedCache({
      clock,
      max: config.openedCredentialsMax,
      ttlMs: config.openedCredentialsTtlMs,
      staleMs: config.openedCredentialsStaleMs,
    }),
    onLeftover,
  };
}
