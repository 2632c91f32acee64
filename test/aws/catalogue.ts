/** Body shapes of InvokeModel; one file each in bedrock/families/. */
export type FamilyName =
  | 'anthropic'
  | 'nova'
  | 'titan-text'
  | 'titan-embed'
  | 'cohere-embed'
  | 'cohere-command'
  | 'cohere-command-r'
  | 'llama'
  | 'mistral';

export interface CatalogueModel {
  modelId: string;
  modelName: string;
  providerName: string;
  family: FamilyName;
  inferenceTypes: readonly ('ON_DEMAND' | 'PROVISIONED' | 'INFERENCE_PROFILE')[];
  /** Geographies that have a system inference profile for this model. */
  profiles: readonly Geography[];
}

export type Geography = 'us' | 'eu' | 'apac' | 'global';

/** Regions that each geography's profiles route to, shortened to a few (AWS: "Supported Regions and models for inference profiles"). */
export const GEOGRAPHY_REGIONS: Record<Geography, readonly string[]> = {
  us: ['us-east-1', 'us-east-2', 'us-west-2'],
  eu: ['eu-central-1', 'eu-north-1', 'eu-west-1', 'eu-west-3'],
  apac: ['ap-northeast-1', 'ap-south-1', 'ap-southeast-1', 'ap-southeast-2'],
  global: ['us-east-1', 'us-west-2', 'eu-west-1', 'ap-northeast-1'],
};

const DIRECT = ['ON_DEMAND'] as const;
const DIRECT_OR_PROVISIONED = ['ON_DEMAND', 'PROVISIONED'] as const;
const PROFILE_ONLY = ['INFERENCE_PROFILE'] as const;
const BOTH = ['ON_DEMAND', 'INFERENCE_PROFILE'] as const;

type Row = readonly [
  id: string,
  name: string,
  family: FamilyName,
  types: CatalogueModel['inferenceTypes'],
  profiles: CatalogueModel['profiles'],
];

/**
 * Real model ids over all families. Unlike AWS, the runtime also takes a PROFILE_ONLY model by its bare id, so that short ids can be
 * used in tests.
 */
const ROWS: readonly Row[] = [
  ['anthropic.claude-opus-4-20250514-v1:0', 'Claude Opus 4', 'anthropic', PROFILE_ONLY, ['us']],
  [
    'anthropic.claude-sonnet-4-20250514-v1:0',
    'Claude Sonnet 4',
    'anthropic',
    PROFILE_ONLY,
    ['us', 'eu', 'apac', 'global'],
  ],
  [
    'anthropic.claude-sonnet-4-5-20250929-v1:0',
    'Claude Sonnet 4.5',
    'anthropic',
    PROFILE_ONLY,
    ['us', 'eu', 'global'],
  ],
  [
    'anthropic.claude-haiku-4-5-20251001-v1:0',
    'Claude Haiku 4.5',
    'anthropic',
    PROFILE_ONLY,
    ['us', 'eu', 'global'],
  ],
  [
    'anthropic.claude-3-7-sonnet-20250219-v1:0',
    'Claude 3.7 Sonnet',
    'anthropic',
    PROFILE_ONLY,
    ['us', 'eu', 'apac'],
  ],
  ['anthropic.claude-3-5-sonnet-20241022-v2:0', 'Claude 3.5 Sonnet v2', 'anthropic', BOTH, ['us', 'apac']],
  ['anthropic.claude-3-5-haiku-20241022-v1:0', 'Claude 3.5 Haiku', 'anthropic', BOTH, ['us']],
  ['anthropic.claude-3-haiku-20240307-v1:0', 'Claude 3 Haiku', 'anthropic', BOTH, ['us', 'eu', 'apac']],
  ['amazon.nova-micro-v1:0', 'Nova Micro', 'nova', BOTH, ['us', 'eu', 'apac']],
  ['amazon.nova-lite-v1:0', 'Nova Lite', 'nova', BOTH, ['us', 'eu', 'apac']],
  ['amazon.nova-pro-v1:0', 'Nova Pro', 'nova', BOTH, ['us', 'eu', 'apac']],
  ['amazon.titan-text-express-v1', 'Titan Text G1 - Express', 'titan-text', DIRECT, []],
  ['amazon.titan-text-lite-v1', 'Titan Text G1 - Lite', 'titan-text', DIRECT_OR_PROVISIONED, []],
  ['amazon.titan-embed-text-v2:0', 'Titan Text Embeddings V2', 'titan-embed', DIRECT, []],
  ['cohere.embed-english-v3', 'Embed English', 'cohere-embed', DIRECT, []],
  ['cohere.embed-multilingual-v3', 'Embed Multilingual', 'cohere-embed', DIRECT, []],
  ['cohere.command-text-v14', 'Command', 'cohere-command', DIRECT_OR_PROVISIONED, []],
  ['cohere.command-r-v1:0', 'Command R', 'cohere-command-r', DIRECT, []],
  ['cohere.command-r-plus-v1:0', 'Command R+', 'cohere-command-r', DIRECT, []],
  ['meta.llama3-8b-instruct-v1:0', 'Llama 3 8B Instruct', 'llama', DIRECT, []],
  ['meta.llama3-70b-instruct-v1:0', 'Llama 3 70B Instruct', 'llama', DIRECT, []],
  ['meta.llama3-3-70b-instruct-v1:0', 'Llama 3.3 70B Instruct', 'llama', PROFILE_ONLY, ['us']],
  ['mistral.mistral-7b-instruct-v0:2', 'Mistral 7B Instruct', 'mistral', DIRECT, []],
  ['mistral.mistral-large-2402-v1:0', 'Mistral Large (24.02)', 'mistral', DIRECT, []],
];

const PROVIDERS: Readonly<Record<string, string>> = {
  anthropic: 'Anthropic',
  amazon: 'Amazon',
  cohere: 'Cohere',
  meta: 'Meta',
  mistral: 'Mistral AI',
};

export const CATALOGUE: readonly CatalogueModel[] = ROWS.map(
  ([modelId, modelName, family, inferenceTypes, profiles]) => ({
    modelId,
    modelName,
    family,
    inferenceTypes,
    profiles,
    providerName: PROVIDERS[modelId.split('.')[0] ?? ''] ?? 'Unknown',
  }),
);

export function catalogueModel(modelId: string): CatalogueModel | undefined {
  return CATALOGUE.find((model) => model.modelId === modelId);
}

/** Embedding models take no prompt and answer no text: no Converse, no streams. */
export function isEmbedding(model: CatalogueModel): boolean {
  return model.family === 'titan-embed' || model.family === 'cohere-embed';
}
