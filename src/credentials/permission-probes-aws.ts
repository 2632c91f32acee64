import {
  BedrockClient,
  GetFoundationModelAvailabilityCommand,
  ListFoundationModelsCommand,
  ListInferenceProfilesCommand,
} from '@aws-sdk/client-bedrock';
import { reachOf } from '../domain/address.ts';
import type { AwsCredential } from '../domain/credential.ts';
import { describeAwsFailure } from './aws-failure.ts';
import type { PermissionProbes, Probed } from './permission-probes.ts';
import { sdkOptions } from './sdk-options-aws.ts';

export interface AwsPermissionProbesOptions {
  /** In place of AWS's own, for all regions, e.g. a VPC endpoint. */
  endpoint?: string | undefined;
  /** AWS's own names may lead to addresses of a VPC. */
  privateNames?: boolean;
  /** Of one attempt; two are made. Default 5_000. */
  requestTimeoutMs?: number;
}

type Answer = Probed[string];

/** Questions to Bedrock's control plane that are free of charge. */
export class AwsPermissionProbes implements PermissionProbes {
  readonly #options: AwsPermissionProbesOptions;

  constructor(options: AwsPermissionProbesOptions) {
    this.#options = options;
  }

  async ask(credential: AwsCredential, region: string): Promise<Probed> {
    const { endpoint: given, privateNames, requestTimeoutMs = 5_000 } = this.#options;
    const endpoint = given ?? `https://bedrock.${region}.amazonaws.com`;
    const target = {
      region,
      endpoint,
      reach: reachOf(given, privateNames),
      maxAttempts: 2,
      requestTimeoutMs,
    };
    const client = new BedrockClient(sdkOptions(target, credential));
    try {
      let modelId: string | undefined;
      const models = await answerTo(async () => {
        const list = await client.send(new ListFoundationModelsCommand({ byOutputModality: 'TEXT' }));
        modelId = list.modelSummaries?.[0]?.modelId;
      });
      const profiles = await answerTo(() => client.send(new ListInferenceProfilesCommand({ maxResults: 1 })));
      const availability =
        modelId === undefined
          ? 'unknown'
          : await answerTo(() => client.send(new GetFoundationModelAvailabilityCommand({ modelId })));
      return {
        'bedrock:ListFoundationModels': models,
        'bedrock:ListInferenceProfiles': profiles,
        'bedrock:GetFoundationModelAvailability': availability,
      };
    } finally {
      client.destroy();
    }
  }
}

async function answerTo(ask: () => Promise<unknown>): Promise<Answer> {
  try {
    await ask();
    return 'allowed';
  } catch (error) {
    const { kind, name } = describeAwsFailure('bedrock', error);
    return kind === 'refused' && name === 'AccessDeniedException' ? 'denied' : 'unknown';
  }
}
