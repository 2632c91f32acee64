import type { AccessKey } from '../domain/credential.ts';
import { Secret } from '../domain/secret.ts';
import type { SecretValues } from './secret-settings.ts';

/** Every secret of the service, in a type that does not print. */
export interface Secrets {
  databaseUrl: Secret;
  tokenPepper: Secret<Buffer>;
  tokenPepperPrevious?: Secret<Buffer>;
  tokenPepperNext?: Secret<Buffer>;
  sessionKey: Secret<Buffer>;
  sessionKeyPrevious?: Secret<Buffer>;
  jwtSecret?: Secret;
  /** For KMS and Secrets Manager; absent means the workload's own identity. */
  serviceCredential?: AccessKey;
  /** For merchants who may use the service's own Bedrock account. */
  serviceDefault?: AccessKey;
}

export function newSecrets(values: SecretValues): Secrets {
  const service = accessKey(
    values.serviceAccessKeyId,
    values.serviceSecretAccessKey,
    values.serviceSessionToken,
  );
  const defaults = accessKey(
    values.serviceDefaultAccessKeyId,
    values.serviceDefaultSecretAccessKey,
    values.serviceDefaultSessionToken,
  );
  return {
    databaseUrl: new Secret(values.databaseUrl),
    tokenPepper: new Secret(values.tokenPepper),
    ...(values.tokenPepperPrevious && { tokenPepperPrevious: new Secret(values.tokenPepperPrevious) }),
    ...(values.tokenPepperNext && { tokenPepperNext: new Secret(values.tokenPepperNext) }),
    sessionKey: new Secret(values.sessionKey),
    ...(values.sessionKeyPrevious && { sessionKeyPrevious: new Secret(values.sessionKeyPrevious) }),
    ...(values.jwtSecret !== undefined && { jwtSecret: new Secret(values.jwtSecret) }),
    ...(service && { serviceCredential: service }),
    ...(defaults && { serviceDefault: defaults }),
  };
}

function accessKey(
  id: string | undefined,
  secret: string | undefined,
  sessionToken: string | undefined,
): AccessKey | undefined {
  if (id === undefined || secret === undefined) return undefined;
  return {
    kind: 'access-key',
    accessKeyId: id,
    secretAccessKey: new Secret(secret),
    ...(sessionToken !== undefined && { sessionToken: new Secret(sessionToken) }),
  };
}
