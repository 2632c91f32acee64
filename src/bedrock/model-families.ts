/** Where a body keeps its media. `unknown`: whatever looks like media has no bound of its own; `opaque`: nothing in it can be bounded. */
export type ContentShape =
  'converse' | 'anthropic' | 'openai' | 'images-by-name' | 'nova-embedding' | 'opaque' | 'unknown';

/** What of a model family's InvokeModel body matters for its price. */
export interface ModelFamily {
  /** `nothing`: no tokens and no images come back that are paid for (embeddings, rerank). */
  produces: 'text' | 'images' | 'nothing';
  content: ContentShape;
  /** Members that limit the output, as paths with dots. The first is set where none is there. Empty: the family is not known. */
  limits: readonly string[];
  /** Tokens that one image in the input counts at most. */
  imageTokens: number;
  /** Members anywhere in the body that hold an image, or a list of images, as base64 or data: URL. */
  imageMembers?: ReadonlySet<string>;
}

/**
 * Claude scales images down to 2,576 pixels and 4,784 tokens of 28 x 28 pixels (models before Opus 4.7: 1,568 pixels, about 1,600 tokens).
 * Source: platform.claude.com/docs/en/build-with-claude/vision.
 */
const CLAUDE_IMAGE = 5_000;
/**
 * Nova takes up to 8,000 x 8,000 pixels and does not scale down; its table has a token for every 506 to 675 pixels, so 64 megapixels are
 * 126,500 tokens. (Nova 2 is said to be billed 230 for each.) Source: docs.aws.amazon.com/nova/latest/userguide/modalities-image.html.
 */
const NOVA_IMAGE = 128_000;
/**
 * The largest of the open-weight models: Qwen3-VL, 16,777,216 pixels at 32 x 32 a token, 16,384 tokens, and its markers. Others are far
 * below: Pixtral 4,160, Kimi 4,096, Nemotron VL 3,328, Llama 4 2,448, Gemma 3 256.
 */
const OPEN_IMAGE = 17_000;

const MAX_TOKENS = ['max_tokens'] as const;
const IMAGE_NAMES: ReadonlySet<string> = new Set([
  ...['image', 'images', 'inputImage', 'conditionImage', 'referenceImage', 'sourceImage', 'maskImage'],
  ...['init_image', 'init_images', 'mask', 'mask_image', 'style_image', 'structure_image', 'control_image'],
]);

function textOf(limits: readonly string[], content: ContentShape, imageTokens = OPEN_IMAGE): ModelFamily {
  return { produces: 'text', content, limits, imageTokens };
}

function namedImages(produces: ModelFamily['produces']): ModelFamily {
  return {
    produces,
    content: 'images-by-name',
    limits: [],
    imageTokens: OPEN_IMAGE,
    imageMembers: IMAGE_NAMES,
  };
}

/** The first that matches the start of the model's id. Source: 'Inference request parameters' of the Bedrock and Nova user guides. */
const FAMILIES: readonly (readonly [pattern: RegExp, family: ModelFamily])[] = [
  [/^anthropic\./, textOf(['max_tokens', 'max_tokens_to_sample'], 'anthropic', CLAUDE_IMAGE)],
  [/^amazon\.(nova-canvas|titan-image)/, namedImages('images')],
  [
    /^amazon\.nova-[a-z0-9-]*embed/,
    { produces: 'nothing', content: 'nova-embedding', limits: [], imageTokens: NOVA_IMAGE },
  ],
  [
    /^amazon\.nova-/,
    textOf(['inferenceConfig.maxTokens', 'inferenceConfig.max_new_tokens'], 'converse', NOVA_IMAGE),
  ],
  [/^amazon\.titan-embed/, namedImages('nothing')],
  [/^amazon\.titan-/, textOf(['textGenerationConfig.maxTokenCount'], 'openai')],
  [/^(amazon|cohere)\.rerank/, { ...textOf([], 'openai'), produces: 'nothing' }],
  [/^cohere\.embed/, { ...namedImages('nothing'), content: 'openai' }],
  [/^stability\./, namedImages('images')],
  [/^twelvelabs\.marengo/, { ...namedImages('nothing'), content: 'opaque' }],
  [/^twelvelabs\./, textOf(['maxOutputTokens'], 'opaque')],
  [/^meta\./, { ...textOf(['max_gen_len'], 'openai'), imageMembers: new Set(['images']) }],
  [/^ai21\.j2/, textOf(['maxTokens'], 'openai')],
  [/^(ai21|cohere|mistral|writer)\./, textOf(MAX_TOKENS, 'openai')],
  [/^deepseek\.r1/, textOf(MAX_TOKENS, 'openai')],
  [/^openai\./, textOf(['max_completion_tokens', 'max_tokens'], 'openai')],
  [
    /^(deepseek|google|minimax|moonshot|moonshotai|nvidia|qwen|zai)\./,
    textOf(['max_tokens', 'max_completion_tokens'], 'openai'),
  ],
];

const UNKNOWN = textOf([], 'unknown', NOVA_IMAGE);

/** @param modelId of a foundation model, without the prefix of an inference profile; '' where it is not known */
export function familyOf(modelId: string): ModelFamily {
  return FAMILIES.find(([pattern]) => pattern.test(modelId))?.[1] ?? UNKNOWN;
}

/**
 * Converse has one shape for all models: only what an image counts is left to the family. Whatever the model, the answer is taken for
 * text: what makes no text is not offered in Converse.
 */
export function converseFamilyOf(modelId: string): ModelFamily {
  return textOf(['inferenceConfig.maxTokens'], 'converse', familyOf(modelId).imageTokens);
}
