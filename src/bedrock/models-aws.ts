import {
  GetFoundationModelCommand,
  GetInferenceProfileCommand,
  GetProvisionedModelThroughputCommand,
} from '@aws-sdk/client-bedrock';
import type { BedrockClient } from '@aws-sdk/client-bedrock';
import { ServiceError } from '../domain/errors.ts';
import type { ModelReach, ReachedModel } from '../domain/model.ts';
import { buildControlClient } from './client-aws.ts';
import { endpointFor } from './egress.ts';
import { parseModelId } from './model-id.ts';
import type { ModelRef } from './model-id.ts';
import type { ModelDescription, ModelQuestion } from './models.ts';
import { Transport } from './transport-aws.ts';
import type { TransportOptions } from './transport-aws.ts';

export interface BedrockModelsOptions extends TransportOptions {
  /** Replaces the endpoint in every region: a VPC endpoint, or the stand-in. */
  endpoint?: string | undefined;
}

type Kind = ModelDescription['kind'];
type Describe = (client: BedrockClient, id: string, abortSignal: AbortSignal) => Promise<ModelDescription>;

/** Questions about models, asked of Bedrock's control plane with the merchant's own credential. Free of charge. */
export class BedrockModels implements AsyncDisposable {
  readonly #endpoint: string | undefined;
  readonly #transport: Transport;

  constructor(options: BedrockModelsOptions) {
    this.#endpoint = options.endpoint;
    this.#transport = new Transport(options);
  }

  /**
   * Describes a model or profile. Undefined when that cannot be checked: the credential may not ask (which does not mean that it may
   * not invoke), or AWS has no such question for this kind of model.
   * @throws ServiceError model.id_invalid (no model id, or AWS knows no such model here) | credential.refused_by_aws | credential.not_usable |
   *   region.not_allowed | upstream.*
   * Cost: a client of its own (0.5 ms), one or two requests, each tried twice at most.
   */
  async getModel({ resolved, modelId, signal }: ModelQuestion): Promise<ModelDescription | undefined> {
    const kinds = kindsOf(parseModelId(modelId));
    const { credential, region } = resolved;
    const endpoint = endpointFor('bedrock', region, this.#endpoint);
    const client = buildControlClient({ credential, region, endpoint, transport: this.#transport });
    try {
      return await firstKnown(kinds, (kind) => DESCRIBE[kind](client, modelId, signal));
    } finally {
      client.destroy();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#transport[Symbol.dispose]();
    return Promise.resolve();
  }
}

/**
 * What an id can be. An ARN says its kind; a plain id does not (`us.` may begin a profile's id or a provider's name), so both are asked;
 * twelve characters may be provisioned, imported or deployed, which no single question covers.
 */
function kindsOf({ id, kind, resource = '' }: ModelRef): readonly Kind[] {
  if (kind === 'arn') return KINDS_OF_ARN.get(resource) ?? [];
  return /^[a-z0-9]{12}$/.test(id) ? [] : ['foundation-model', 'inference-profile'];
}

const KINDS_OF_ARN: ReadonlyMap<string, readonly Kind[]> = new Map([
  ['foundation-model', ['foundation-model']],
  ['inference-profile', ['inference-profile']],
  ['application-inference-profile', ['inference-profile']],
  ['provisioned-model', ['provisioned-model']],
]);

const DESCRIBE: Record<Kind, Describe> = {
  'foundation-model': async (client, id, abortSignal) => {
    const command = new GetFoundationModelCommand({ modelIdentifier: id });
    const { modelDetails } = await client.send(command, { abortSignal });
    const status = modelDetails?.modelLifecycle?.status;
    return describe('foundation-model', modelDetails?.modelId ?? id, status);
  },
  'inference-profile': async (client, id, abortSignal) => {
    const command = new GetInferenceProfileCommand({ inferenceProfileIdentifier: id });
    const { inferenceProfileId, status, models = [] } = await client.send(command, { abortSignal });
    const arns = models.flatMap(({ modelArn }) => modelArn ?? []);
    const regions = new Set(arns.map((arn) => arn.split(':')[3] ?? ''));
    // Of a global profile one of the models has no region in its ARN. Source: responses of GetInferenceProfile.
    const reach = regions.has('') ? 'global' : regions.size > 1 ? 'geographic' : 'in-region';
    return describe('inference-profile', inferenceProfileId ?? id, status, runs(arns[0], reach));
  },
  'provisioned-model': async (client, id, abortSignal) => {
    const command = new GetProvisionedModelThroughputCommand({ provisionedModelId: id });
    const { provisionedModelArn, foundationModelArn, status } = await client.send(command, { abortSignal });
    const model = runs(foundationModelArn, 'provisioned');
    return describe('provisioned-model', provisionedModelArn ?? id, status, model);
  },
};

function describe(kind: Kind, modelId: string, status = 'unknown', model?: ReachedModel): ModelDescription {
  return { kind, modelId, status, ...(model !== undefined && { runs: model }) };
}

/** @param arn of a foundation model; that of anything else says nothing of what runs. */
function runs(arn: string | undefined, profile: ModelReach): ReachedModel | undefined {
  const [, modelId] = arn?.split(':foundation-model/') ?? [];
  return modelId === undefined ? undefined : { modelId, profile };
}

/** Asks one kind after the other. Not found as any of them: invalid, unless one of the answers was withheld. */
async function firstKnown(kinds: readonly Kind[], ask: (kind: Kind) => Promise<ModelDescription>) {
  let withheld = kinds.length === 0;
  for (const kind of kinds) {
    const answer = await ask(kind).catch(refusalOf);
    if (typeof answer === 'object') return answer;
    withheld ||= answer === 'not permitted';
  }
  if (withheld) return undefined;
  throw new ServiceError('model.id_invalid', 'AWS knows no such model or inference profile in this region.');
}

const NOT_FOUND = ['ResourceNotFoundException', 'ValidationException'];
const CREDENTIAL_REFUSED = [
  'UnrecognizedClientException',
  'InvalidSignatureException',
  'ExpiredTokenException',
  'IncompleteSignatureException',
  'MissingAuthenticationTokenException',
];
/** Refused API keys come as AccessDeniedException and differ in the message only. */
const API_KEY_REFUSED = /^(Authentication failed|Bearer Token has expired)/;

/** What an error of the SDK says about the model. @throws ServiceError when it says something about anything else. */
function refusalOf(error: unknown): 'not found' | 'not permitted' {
  if (!(error instanceof Error) || error instanceof ServiceError) throw error;
  const { name, message } = error;
  if (NOT_FOUND.includes(name)) return 'not found';
  if (CREDENTIAL_REFUSED.includes(name) || API_KEY_REFUSED.test(message)) {
    throw new ServiceError('credential.refused_by_aws', 'AWS did not accept the credential.', {
      cause: error,
    });
  }
  if (name === 'AccessDeniedException') return 'not permitted';
  const code = name === 'ThrottlingException' ? 'upstream.throttled' : 'upstream.error';
  throw new ServiceError(code, 'AWS could not say whether the model exists.', { cause: error });
}
