import type { LookupFunction } from 'node:net';
import { BedrockClient, ListFoundationModelsCommand } from '@aws-sdk/client-bedrock';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import type { AccessKey, AwsCredential, AwsIdentity, BedrockApiKey } from '../domain/credential.ts';
import { reachOf } from '../domain/address.ts';
import { ServiceError } from '../domain/errors.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { AwsFailure } from './aws-failure.ts';
import type { IdentityCheck } from './identity.ts';
import { refuseRoot, refusalOf } from './identity-refusal.ts';
import { sdkOptions } from './sdk-options-aws.ts';

export interface AwsIdentityCheckOptions {
  /** Regions of this deployment; hosts are built from these names and from nothing else. */
  regions: readonly string[];
  /** In place of AWS's own, for all regions, e.g. VPC endpoints. */
  endpoints?: { sts?: string; bedrock?: string };
  /** AWS's own names may lead to addresses of a VPC. */
  privateNames?: boolean;
  /** Default: the system's. */
  lookup?: LookupFunction;
  /** Of one attempt; two are made. Default 3_000. */
  requestTimeoutMs?: number;
}

/** Asks STS (access keys) or Bedrock's model list (API keys, which STS does not know). Each check has a client of its own. */
export class AwsIdentityCheck implements IdentityCheck {
  readonly #options: AwsIdentityCheckOptions;

  constructor(options: AwsIdentityCheckOptions) {
    this.#options = options;
  }

  async checkCredential(credential: AwsCredential, region: string): Promise<AwsIdentity> {
    if (!this.#options.regions.includes(region)) {
      throw new ServiceError(
        'region.not_allowed',
        `Use one of the regions of this service: ${this.#options.regions.join(', ')}.`,
      );
    }
    return credential.kind === 'access-key'
      ? this.#askSts(credential, region)
      : this.#askBedrock(credential, region);
  }

  async #askSts(accessKey: AccessKey, region: string): Promise<AwsIdentity> {
    const client = new STSClient(sdkOptions(this.#target('sts', region), accessKey));
    try {
      const answer = await client.send(new GetCallerIdentityCommand({}));
      return identityFrom(answer.Account, answer.Arn);
    } catch (error) {
      throw toServiceError('sts:GetCallerIdentity', error, accessKey);
    } finally {
      client.destroy();
    }
  }

  /** The shortest list there is: only that it is answered matters. */
  async #askBedrock(apiKey: BedrockApiKey, region: string): Promise<AwsIdentity> {
    const client = new BedrockClient(sdkOptions(this.#target('bedrock', region), apiKey));
    try {
      await client.send(new ListFoundationModelsCommand({ byOutputModality: 'EMBEDDING' }));
      return { accountId: undefined, arn: undefined };
    } catch (error) {
      throw toServiceError('bedrock:ListFoundationModels', error, apiKey);
    } finally {
      client.destroy();
    }
  }

  #target(service: 'sts' | 'bedrock', region: string) {
    const given = this.#options.endpoints?.[service];
    const endpoint = given ?? `https://${service}.${region}.amazonaws.com`;
    const { lookup, privateNames, requestTimeoutMs = 3_000 } = this.#options;
    const reach = reachOf(given, privateNames);
    return { region, endpoint, reach, lookup, maxAttempts: 2, requestTimeoutMs };
  }
}

function identityFrom(accountId: string | undefined, arn: string | undefined): AwsIdentity {
  if (accountId === undefined || arn === undefined || !/^\d{12}$/.test(accountId))
    throw new ServiceError('upstream.error', 'AWS answered without saying whose credential this is.');
  refuseRoot(arn);
  return { accountId, arn };
}

function toServiceError(call: string, error: unknown, credential: AwsCredential): ServiceError {
  if (error instanceof ServiceError) return error;
  const failure = describeAwsFailure(call, error);
  return failure.kind === 'refused' ? refusalOf(failure, credential.kind) : unanswered(failure);
}

function unanswered(failure: AwsFailure): ServiceError {
  if (failure.kind === 'not-sent')
    return new ServiceError('internal', 'The check could not be sent.', { cause: failure.cause });
  return new ServiceError(
    'upstream.unreachable',
    'AWS did not answer when asked about this credential, so it was not used. Try again shortly.',
    { cause: failure.cause, retryAfterSeconds: 5 },
  );
}
