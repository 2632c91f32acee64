import {
  GetFoundationModelAvailabilityCommand,
  ListFoundationModelsCommand,
  ListInferenceProfilesCommand,
} from '@aws-sdk/client-bedrock';
import type { BedrockClient, InferenceProfileSummary } from '@aws-sdk/client-bedrock';
import type { ResolvedCredential } from '../domain/credential.ts';
import { classifyReply } from './aws-errors.ts';
import { buildListClient } from './client-aws.ts';
import { endpointFor } from './egress.ts';
import { failureOf, unanswered } from './probes.ts';
import type { ListedModel, ListedProfile, ModelAvailability, Probed } from './probes.ts';
import { Transport } from './transport-aws.ts';
import type { TransportOptions } from './transport-aws.ts';

export interface ProbeOptions extends TransportOptions {
  /** Replaces the endpoint in every region: a VPC endpoint, or the stand-in. */
  endpoint?: string | undefined;
}

interface Asked {
  resolved: ResolvedCredential;
  signal: AbortSignal;
}

/** AWS gives a hundred or so a page; an account may have a thousand profiles of its own. */
const PAGES_MAX = 12;
const PAGE_SIZE = 1_000;

/**
 * The free questions of Bedrock's control plane, asked with the merchant's own credential, once each: what AWS answers is the finding, so no
 * refusal is an error here. Nothing throws but defects of ours.
 */
export class BedrockProbes implements AsyncDisposable {
  readonly #endpoint: string | undefined;
  readonly #transport: Transport;

  constructor(options: ProbeOptions) {
    this.#endpoint = options.endpoint;
    this.#transport = new Transport(options);
  }

  listModels(asked: Asked): Promise<Probed<ListedModel[]>> {
    return this.#ask(asked, 'bedrock:ListFoundationModels', async (client, abortSignal) => {
      const { modelSummaries = [] } = await client.send(new ListFoundationModelsCommand({}), { abortSignal });
      return modelSummaries.map(({ modelId = '', inferenceTypesSupported = [] }) => ({
        modelId,
        inferenceTypes: inferenceTypesSupported,
      }));
    });
  }

  /** Those that AWS offers and those of the account. */
  listProfiles(asked: Asked): Promise<Probed<ListedProfile[]>> {
    return this.#ask(asked, 'bedrock:ListInferenceProfiles', async (client, abortSignal) => {
      const [system, own] = await Promise.all([
        profilesOf(client, 'SYSTEM_DEFINED', abortSignal),
        profilesOf(client, 'APPLICATION', abortSignal),
      ]);
      return [...system, ...own];
    });
  }

  /** Whether the account may use a model. That this principal may call it is another question, which AWS does not answer. */
  availability(asked: Asked, modelId: string): Promise<Probed<ModelAvailability>> {
    return this.#ask(asked, 'bedrock:GetFoundationModelAvailability', async (client, abortSignal) => {
      const answer = await client.send(new GetFoundationModelAvailabilityCommand({ modelId }), {
        abortSignal,
      });
      return {
        agreement: answer.agreementAvailability?.status ?? 'not said',
        authorization: answer.authorizationStatus ?? 'not said',
        entitlement: answer.entitlementAvailability ?? 'not said',
        region: answer.regionAvailability ?? 'not said',
      };
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#transport[Symbol.dispose]();
    return Promise.resolve();
  }

  async #ask<T>(
    { resolved, signal }: Asked,
    action: string,
    ask: (client: BedrockClient, signal: AbortSignal) => Promise<T>,
  ): Promise<Probed<T>> {
    const { credential, region } = resolved;
    const endpoint = endpointFor('bedrock', region, this.#endpoint);
    const client = buildListClient({ credential, region, endpoint, transport: this.#transport });
    try {
      return { answer: await ask(client, signal) };
    } catch (error) {
      return failed(error, action);
    } finally {
      client.destroy();
    }
  }
}

async function profilesOf(
  client: BedrockClient,
  typeEquals: 'SYSTEM_DEFINED' | 'APPLICATION',
  abortSignal: AbortSignal,
): Promise<ListedProfile[]> {
  const found: ListedProfile[] = [];
  let nextToken: string | undefined;
  for (let page = 0; page < PAGES_MAX; page++) {
    const input = { typeEquals, maxResults: PAGE_SIZE, ...(nextToken !== undefined && { nextToken }) };
    const answer = await client.send(new ListInferenceProfilesCommand(input), { abortSignal });
    found.push(...(answer.inferenceProfileSummaries ?? []).map(toProfile));
    nextToken = answer.nextToken;
    if (nextToken === undefined) return found;
  }
  throw new Error('AWS has more pages of profiles than are read.');
}

function toProfile(summary: InferenceProfileSummary): ListedProfile {
  const { inferenceProfileId = '', inferenceProfileArn = '', models = [], type } = summary;
  return {
    profileId: inferenceProfileId,
    arn: inferenceProfileArn,
    kind: type === 'APPLICATION' ? 'application-inference-profile' : 'inference-profile',
    modelArns: models.flatMap(({ modelArn }) => modelArn ?? []),
  };
}

/** An exception of the SDK as the refusal that it is. */
function failed(error: unknown, action: string): ReturnType<typeof unanswered> {
  const { name, message, $metadata } = (error ?? {}) as {
    name?: string;
    message?: string;
    $metadata?: { httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode;
  if (status === undefined || status < 400) return unanswered();
  const refusal = classifyReply({
    status,
    headers: name === undefined ? {} : { 'x-amzn-errortype': name },
    body: Buffer.from(JSON.stringify({ message: message ?? '' })),
  });
  return { failure: failureOf(refusal, action) };
}
