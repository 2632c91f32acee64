import * as lifecycle from './lifecycle-operations.ts';
import * as value from './value-operations.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

export const SECRETS_MANAGER_OPERATIONS: Readonly<Record<string, (call: Call, world: World) => Answer>> = {
  CreateSecret: value.createSecret,
  PutSecretValue: value.putSecretValue,
  GetSecretValue: value.getSecretValue,
  UpdateSecret: value.updateSecret,
  UpdateSecretVersionStage: value.updateSecretVersionStage,
  DeleteSecret: lifecycle.deleteSecret,
  RestoreSecret: lifecycle.restoreSecret,
  DescribeSecret: lifecycle.describeSecret,
  ListSecretVersionIds: lifecycle.listSecretVersionIds,
  ListSecrets: lifecycle.listSecrets,
  TagResource: lifecycle.tagResource,
};
