import { AssumeRoleCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import type { AssumeRoleCommandOutput } from '@aws-sdk/client-sts';
import { reachOf } from '../domain/address.ts';
import type { AccessKey } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';
import { Secret } from '../domain/secret.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { AssumedRole, AssumeRoleAsk, RoleAssumer } from './role-assumer.ts';
import { isPolicyTooLarge, ownIdentityFailure, roleFailure } from './role-refusal.ts';
import { principalOf } from './role.ts';
import { sdkOptions } from './sdk-options-aws.ts';
import { SESSION_POLICY_MAX } from './session-policy.ts';

export interface AwsRoleAssumerOptions {
  /** Regions of this deployment; hosts are built from these names and from nothing else. */
  regions: readonly string[];
  /** Where the service asks who it is itself. */
  homeRegion: string;
  /** In place of AWS's own, for all regions, e.g. a VPC endpoint. */
  endpoint?: string;
  /** AWS's own names may lead to addresses of a VPC. */
  privateNames?: boolean;
  /** The service's own keys; without them the SDK finds its workload identity. */
  serviceCredentials?: AccessKey;
  /** Whom trust policies are to name; without it AWS is asked who the service is. */
  principalArn?: string;
  /** Of one attempt; two are made. Default 3_000. */
  requestTimeoutMs?: number;
}

/** The longest session that a role may give to one which is itself a session of a role. Source: IAM user guide, "role chaining". */
const DURATION_SECONDS = 3_600;

/** Asks the STS of the region that the session is for, so that one region's outage is that region's. */
export class AwsRoleAssumer implements RoleAssumer, Disposable {
  readonly #options: AwsRoleAssumerOptions;
  readonly #clients = new Map<string, STSClient>();
  #principal: Promise<string> | undefined;

  constructor(options: AwsRoleAssumerOptions) {
    this.#options = options;
  }

  async assume(ask: AssumeRoleAsk): Promise<AssumedRole> {
    const client = this.#clientOf(ask.region);
    const usable = ask.policies.filter((policy) => policy.length <= SESSION_POLICY_MAX);
    for (const [index, policy] of usable.entries()) {
      try {
        return await assumeOnce(client, ask, policy);
      } catch (error) {
        if (error instanceof ServiceError) throw error;
        const failure = describeAwsFailure('sts:AssumeRole', error);
        if (!isPolicyTooLarge(failure) || index === usable.length - 1) throw roleFailure(failure);
      }
    }
    throw new ServiceError('internal', 'No session policy is short enough for AWS.');
  }

  ownPrincipal(): Promise<string> {
    const { principalArn } = this.#options;
    this.#principal ??= (
      principalArn === undefined ? this.#askWhoIAm() : Promise.resolve(principalArn)
    ).catch((error: unknown) => {
      this.#principal = undefined;
      throw ownIdentityFailure(describeAwsFailure('sts:GetCallerIdentity', error));
    });
    return this.#principal;
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client.destroy();
    this.#clients.clear();
  }

  async #askWhoIAm(): Promise<string> {
    const { Arn } = await this.#buildClient(this.#options.homeRegion).send(new GetCallerIdentityCommand({}));
    if (Arn === undefined) throw new TypeError('AWS answered without saying who the service is');
    return principalOf(Arn);
  }

  /** @throws ServiceError region.not_allowed */
  #clientOf(region: string): STSClient {
    const { regions } = this.#options;
    if (!regions.includes(region))
      throw new ServiceError(
        'region.not_allowed',
        `Use one of the regions of this service: ${regions.join(', ')}.`,
      );
    return this.#buildClient(region);
  }

  /** One for each region and for good: finding a workload identity takes several requests of its own. */
  #buildClient(region: string): STSClient {
    const known = this.#clients.get(region);
    if (known !== undefined) return known;
    const { endpoint: given, privateNames, requestTimeoutMs = 3_000 } = this.#options;
    const endpoint = given ?? `https://sts.${region}.amazonaws.com`;
    const target = {
      region,
      endpoint,
      reach: reachOf(given, privateNames),
      maxAttempts: 2,
      requestTimeoutMs,
    };
    const client = new STSClient(sdkOptions(target, this.#options.serviceCredentials ?? 'workload'));
    this.#clients.set(region, client);
    return client;
  }
}

async function assumeOnce(client: STSClient, ask: AssumeRoleAsk, policy: string): Promise<AssumedRole> {
  const { roleArn, externalId, sessionName, tags } = ask;
  const command = new AssumeRoleCommand({
    RoleArn: roleArn,
    ExternalId: externalId,
    RoleSessionName: sessionName,
    DurationSeconds: DURATION_SECONDS,
    Policy: policy,
    ...(Object.keys(tags).length > 0 && {
      Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
      TransitiveTagKeys: Object.keys(tags),
    }),
  });
  let answeredAt: string | undefined;
  command.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      answeredAt = (result.response as { headers?: Record<string, string> }).headers?.['date'];
      return result;
    },
    { step: 'deserialize', priority: 'low' },
  );
  return assumedFrom(await client.send(command), answeredAt);
}

function assumedFrom({ Credentials }: AssumeRoleCommandOutput, answeredAt = ''): AssumedRole {
  const {
    AccessKeyId: id,
    SecretAccessKey: secret,
    SessionToken: token,
    Expiration: end,
  } = Credentials ?? {};
  if (!id || !secret || !token)
    throw new ServiceError('upstream.error', 'AWS gave out a session of the role without its keys.');
  const accessKey: AccessKey = {
    kind: 'access-key',
    accessKeyId: id,
    secretAccessKey: new Secret(secret),
    sessionToken: new Secret(token),
  };
  return { accessKey, lifetimeMs: lifetimeOf(end, Date.parse(answeredAt)) };
}

/** Both times are AWS's, so a clock of ours that is wrong does not matter; without them it is what was asked for. */
function lifetimeOf(end: Date | undefined, answeredAt: number): number {
  const asked = DURATION_SECONDS * 1_000;
  const told = end === undefined ? Number.NaN : end.getTime() - answeredAt;
  return Number.isNaN(told) ? asked : Math.max(0, Math.min(told, asked));
}
