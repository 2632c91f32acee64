import type { BedrockState } from './bedrock/state.ts';
import type { Signer } from './identity/key-ring.ts';
import type { RoleBook } from './sts/roles.ts';
import type { KmsKeys } from './kms/keys.ts';
import type { SecretShelf } from './secrets-manager/shelf.ts';
import type { AwsRequest } from './wire/request.ts';
import type { LogBook } from './logs/records.ts';
import type { KeyRing } from './identity/key-ring.ts';

/** One proven request on its way to the service that it names. */
export interface Call {
  operation: string;
  /** Decoded path parameter: a model id, a profile id. */
  resource?: string | undefined;
  request: AwsRequest;
  signer: Signer;
  requestId: string;
}

/** Everything that the pretended AWS holds. */
export interface World {
  keys: KeyRing;
  roles: RoleBook;
  bedrock: BedrockState;
  kms: KmsKeys;
  secrets: SecretShelf;
  logs: LogBook;
  /** How long AWS takes to know a key that IAM made. */
  newKeyDelayMs: { value: number };
}
