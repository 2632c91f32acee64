import {
  CreateAccessKeyCommand,
  DeleteAccessKeyCommand,
  IAMClient,
  ListAccessKeysCommand,
  UpdateAccessKeyCommand,
} from '@aws-sdk/client-iam';
import type { AccessKeyMetadata } from '@aws-sdk/client-iam';
import type { Clock } from '../domain/clock.ts';
import type { AccessKey } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import { Secret } from '../domain/secret.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { AwsFailure } from './aws-failure.ts';
import { iamRefusal, iamUnanswered, keyLimit } from './iam-keys-refusal.ts';
import type { IamAccessKey, IamKeys, KeyOwner } from './iam-keys.ts';
import { sdkOptions } from './sdk-options-aws.ts';

export interface AwsIamKeysOptions {
  clock: Clock;
  /** In place of AWS's own. */
  endpoint?: string;
  /** Of one attempt. Default 5_000. */
  requestTimeoutMs?: number;
}

/** IAM is one service for all regions; its signatures name this one. */
const REGION = 'us-east-1';
const ENDPOINT = 'https://iam.amazonaws.com';
/** A user has two keys, so more pages than this are not IAM's. */
const PAGES_MAX = 10;

/** The only importer of IAM. Each call has a client of its own, which knows this one key and no other. */
export class AwsIamKeys implements IamKeys {
  readonly #options: AwsIamKeysOptions;

  constructor(options: AwsIamKeysOptions) {
    this.#options = options;
  }

  async list(owner: KeyOwner): Promise<IamAccessKey[]> {
    return this.#ask('iam:ListAccessKeys', owner, async (client) => {
      const keys: IamAccessKey[] = [];
      let marker: string | undefined;
      for (let page = 0; page < PAGES_MAX; page++) {
        const answer = await client.send(new ListAccessKeysCommand(marker ? { Marker: marker } : {}));
        keys.push(...(answer.AccessKeyMetadata ?? []).map(toKey));
        marker = answer.IsTruncated === true ? answer.Marker : undefined;
        if (marker === undefined) break;
      }
      return keys.sort((a, b) => a.createdAt.getTime() - b.createdAt.getTime());
    });
  }

  async create(owner: KeyOwner): Promise<AccessKey> {
    return this.#ask('iam:CreateAccessKey', owner, async (client) => {
      const { AccessKey: made } = await client.send(new CreateAccessKeyCommand({}));
      const { AccessKeyId: accessKeyId, SecretAccessKey: secret } = made ?? {};
      if (!accessKeyId || !secret)
        throw new ServiceError('upstream.error', 'IAM made a key without saying which.');
      return { kind: 'access-key', accessKeyId, secretAccessKey: new Secret(secret) };
    });
  }

  async deactivate(owner: KeyOwner, accessKeyId: string): Promise<'done' | 'gone'> {
    const command = new UpdateAccessKeyCommand({ AccessKeyId: accessKeyId, Status: 'Inactive' });
    return this.#ask('iam:UpdateAccessKey', owner, (client) => doneOrGone(client.send(command)));
  }

  async remove(owner: KeyOwner, accessKeyId: string): Promise<'done' | 'gone'> {
    const command = new DeleteAccessKeyCommand({ AccessKeyId: accessKeyId });
    return this.#ask('iam:DeleteAccessKey', owner, (client) => doneOrGone(client.send(command)));
  }

  async #ask<T>(action: string, owner: KeyOwner, work: (client: IAMClient) => Promise<T>): Promise<T> {
    if (owner.accessKey.sessionToken !== undefined)
      throw new ServiceError(
        'credential.not_usable',
        'These are temporary keys: no IAM user has them, so they cannot be exchanged. Send new ones before they expire.',
      );
    const creates = action === 'iam:CreateAccessKey';
    const { endpoint = ENDPOINT, requestTimeoutMs = 5_000 } = this.#options;
    // A second attempt at creating could make a second key, and nobody would have the secret of the first.
    const target = { region: REGION, endpoint, maxAttempts: creates ? 1 : 2, requestTimeoutMs };
    const client = new IAMClient(sdkOptions(target, owner.accessKey));
    try {
      return await work(client);
    } catch (error) {
      if (error instanceof ServiceError) throw error;
      throw await this.#toServiceError(action, describeAwsFailure(action, error), owner);
    } finally {
      client.destroy();
    }
  }

  async #toServiceError(action: string, failure: AwsFailure, owner: KeyOwner): Promise<ServiceError> {
    // The same name means throttling at other services.
    if (failure.name === 'LimitExceededException' || failure.name === 'LimitExceeded') {
      const keys = await this.list(owner).catch(() => undefined);
      return keyLimit(failure, keys, this.#options.clock);
    }
    if (failure.kind === 'refused') return iamRefusal(action, failure, owner);
    return iamUnanswered(failure, action === 'iam:CreateAccessKey');
  }
}

function toKey({ AccessKeyId, Status, CreateDate }: AccessKeyMetadata): IamAccessKey {
  if (!AccessKeyId || CreateDate === undefined)
    throw new ServiceError('upstream.error', 'IAM listed a key without its name or age.');
  return {
    accessKeyId: AccessKeyId,
    state: Status === 'Active' ? 'active' : 'inactive',
    createdAt: CreateDate,
  };
}

async function doneOrGone(work: Promise<unknown>): Promise<'done' | 'gone'> {
  try {
    await work;
    return 'done';
  } catch (error) {
    if (describeAwsFailure('iam', error).name === 'NoSuchEntityException') return 'gone';
    throw error;
  }
}
