import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ModelRequest, UNBOUNDED_INPUT } from '../../src/bedrock/model-request.ts';
import type { RequestChanges } from '../../src/bedrock/model-request.ts';
import { ServiceError } from '../../src/domain/errors.ts';
import type { Operation } from '../../src/domain/usage.ts';
import { cpuMsOf } from '../support/cpu.ts';

const CLAUDE = 'anthropic.claude-3-5-haiku-20241022-v1:0';
const NOVA = 'amazon.nova-lite-v1:0';
const TITAN = 'amazon.titan-text-express-v1';
const OSS = 'openai.gpt-oss-120b-1:0';
const PIXTRAL = 'mistral.pixtral-large-2502-v1:0';
/** Base64 long enough that it would show if it were counted as text. */
const BASE64 = 'iVBORw0KGgo'.repeat(20_000);
/** More than any image counts, less than BASE64. */
const ONE_IMAGE_MAX = 140_000;

function bytesOf(body: unknown): Buffer {
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
}

function invoke(modelId: string, body: unknown): ModelRequest {
  return ModelRequest.read('invoke', modelId, bytesOf(body));
}

function converse(body: unknown, modelId = CLAUDE): ModelRequest {
  return ModelRequest.read('converse', modelId, bytesOf(body));
}

function encoded(request: ModelRequest, changes: RequestChanges): unknown {
  return JSON.parse(Buffer.from(request.encode(changes)).toString()) as unknown;
}

function codeOf(work: () => unknown): string {
  try {
    work();
    return 'ok';
  } catch (error) {
    return error instanceof ServiceError ? error.code : String(error);
  }
}

const said = (content: unknown): { role: string; content: unknown }[] => [{ role: 'user', content }];
const HI = said([{ text: 'hi' }]);

// --- Output ------------------------------------------------------------------------------------------------------

/** model, body, output tokens, the body after `encode({ maxTokens: 7 })` */
const OUTPUT: [modelId: string, body: object, outputTokens: number | undefined, clamped: object][] = [
  [CLAUDE, { max_tokens: 100 }, 100, { max_tokens: 7 }],
  [CLAUDE, { max_tokens: 5 }, 5, { max_tokens: 5 }],
  [CLAUDE, { prompt: 'a', max_tokens_to_sample: 100 }, 100, { prompt: 'a', max_tokens_to_sample: 7 }],
  [CLAUDE, {}, undefined, { max_tokens: 7 }],
  [NOVA, { inferenceConfig: { max_new_tokens: 90 } }, 90, { inferenceConfig: { max_new_tokens: 7 } }],
  [NOVA, { inferenceConfig: { maxTokens: 90 } }, 90, { inferenceConfig: { maxTokens: 7 } }],
  [NOVA, { max_tokens: 90 }, undefined, { max_tokens: 7, inferenceConfig: { maxTokens: 7 } }],
  [NOVA, { inferenceConfig: 'odd' }, undefined, { inferenceConfig: { maxTokens: 7 } }],
  [
    TITAN,
    { textGenerationConfig: { maxTokenCount: 80 } },
    80,
    { textGenerationConfig: { maxTokenCount: 7 } },
  ],
  [TITAN, { inputText: 'a' }, undefined, { inputText: 'a', textGenerationConfig: { maxTokenCount: 7 } }],
  ['meta.llama3-1-8b-instruct-v1:0', { max_gen_len: 60 }, 60, { max_gen_len: 7 }],
  ['meta.llama3-1-8b-instruct-v1:0', { max_tokens: 60 }, undefined, { max_tokens: 7, max_gen_len: 7 }],
  ['mistral.mistral-large-2402-v1:0', { max_tokens: 60 }, 60, { max_tokens: 7 }],
  [
    'mistral.mistral-large-2402-v1:0',
    { max_completion_tokens: 3 },
    undefined,
    { max_completion_tokens: 3, max_tokens: 7 },
  ],
  ['deepseek.r1-v1:0', { max_tokens: 60 }, 60, { max_tokens: 7 }],
  ['deepseek.r1-v1:0', { max_tokens: 60, prompt: ['a', 'b'] }, 120, { max_tokens: 3, prompt: ['a', 'b'] }],
  ['qwen.qwen3-32b-v1:0', { max_completion_tokens: 60 }, 60, { max_completion_tokens: 7 }],
  ['writer.palmyra-x5-v1:0', { max_tokens: 60, n: 2 }, 120, { max_tokens: 3, n: 2 }],
  ['cohere.command-r-v1:0', { message: 'a', max_tokens: 60 }, 60, { message: 'a', max_tokens: 7 }],
  [
    'cohere.command-text-v14',
    { max_tokens: 60, num_generations: 5 },
    300,
    { max_tokens: 1, num_generations: 5 },
  ],
  ['ai21.jamba-1-5-mini-v1:0', { max_tokens: 60, n: 3 }, 180, { max_tokens: 2, n: 3 }],
  ['ai21.jamba-1-5-mini-v1:0', { max_tokens: 60, n: 16 }, 960, { max_tokens: 1, n: 16 }],
  ['ai21.j2-ultra-v1', { maxTokens: 60, numResults: 2 }, 120, { maxTokens: 3, numResults: 2 }],
  [OSS, { max_completion_tokens: 50 }, 50, { max_completion_tokens: 7 }],
  [OSS, { max_tokens: 50 }, 50, { max_tokens: 7 }],
  [OSS, { max_tokens: 5, max_completion_tokens: 50 }, 50, { max_tokens: 5, max_completion_tokens: 7 }],
  [OSS, { n: null, max_tokens: 50 }, 50, { n: null, max_tokens: 7 }],
  [OSS, {}, undefined, { max_completion_tokens: 7 }],
  ['twelvelabs.pegasus-1-2-v1:0', { maxOutputTokens: 50 }, 50, { maxOutputTokens: 7 }],
  ['newcomer.model-v1', { max_tokens: 50 }, 50, { max_tokens: 7 }],
  ['', { max_gen_len: 50, max_tokens: 1 }, 50, { max_gen_len: 7, max_tokens: 1 }],
  // Other spellings: whoever reads them gets no more than the largest.
  [CLAUDE, { max_tokens: 5, MAX_TOKENS: 50 }, 50, { max_tokens: 5, MAX_TOKENS: 7 }],
  [CLAUDE, { Max_Tokens: 50 }, undefined, { Max_Tokens: 7, max_tokens: 7 }],
  [
    NOVA,
    { inferenceConfig: { maxTokens: 5 }, InferenceConfig: { MaxTokens: 50 } },
    50,
    { inferenceConfig: { maxTokens: 5 }, InferenceConfig: { MaxTokens: 7 } },
  ],
  [CLAUDE, { max_tokens: 5, maxTokens: 'x' }, undefined, { max_tokens: 5, maxTokens: 7 }],
];

test.each(OUTPUT)('output of %s: %j', (modelId, body, outputTokens, clamped) => {
  const request = invoke(modelId, body);
  expect(request.bound).toMatchObject({ outputTokens, images: 0 });
  expect(request.canClamp).toBe(true);
  expect(encoded(request, { maxTokens: 7 })).toEqual(clamped);
});

test.each(['100', '"100"', '-1', '0', '1.5', '1e400', '2147483649', 'null', '[]', '{}', 'true'])(
  'a limit of %s counts as said only if AWS takes it for a number',
  (limit) => {
    const request = invoke(CLAUDE, `{"max_tokens":${limit}}`);
    expect(request.bound.outputTokens).toBe(limit === '100' ? 100 : undefined);
    expect(encoded(request, { maxTokens: 7 })).toEqual({ max_tokens: 7 });
  },
);

test.each(['"2"', '-1', '0', '1.5', '1e400', '[]'])('with %s answers nothing is certain', (n) => {
  const request = invoke(OSS, `{"max_tokens":10,"n":${n}}`);
  expect(request.bound.outputTokens).toBeUndefined();
  expect(request.canClamp).toBe(false);
  expect(Buffer.from(request.encode({ maxTokens: 1 })).toString()).toBe(`{"max_tokens":10,"n":${n}}`);
});

test.each([
  [{ messages: HI, inferenceConfig: { maxTokens: 50 } }, 50, { inferenceConfig: { maxTokens: 7 } }],
  [{ messages: HI }, undefined, { inferenceConfig: { maxTokens: 7 } }],
  [
    { messages: HI, inferenceConfig: { maxTokens: 5 }, additionalModelRequestFields: { max_tokens: 50 } },
    50,
    { inferenceConfig: { maxTokens: 5 }, additionalModelRequestFields: { max_tokens: 7 } },
  ],
  [
    // Which one AWS takes where only the model's own is there is not documented.
    { messages: HI, additionalModelRequestFields: { max_tokens: 5 } },
    undefined,
    { inferenceConfig: { maxTokens: 7 }, additionalModelRequestFields: { max_tokens: 5 } },
  ],
  [
    {
      messages: HI,
      inferenceConfig: { maxTokens: 50 },
      additionalModelRequestFields: { inferenceConfig: { max_new_tokens: 60 }, n: 2 },
    },
    120,
    {
      inferenceConfig: { maxTokens: 3 },
      additionalModelRequestFields: { inferenceConfig: { max_new_tokens: 3 }, n: 2 },
    },
  ],
])('output of Converse: %j', (body, outputTokens, clamped) => {
  for (const modelId of [CLAUDE, NOVA, '']) {
    const request = converse(body, modelId);
    expect(request.bound.outputTokens).toBe(outputTokens);
    expect(request.canClamp).toBe(true);
    expect(encoded(request, { maxTokens: 7 })).toEqual({ messages: HI, ...clamped });
  }
});

const thinking = (budget: unknown): object => ({ thinking: { type: 'enabled', budget_tokens: budget } });

test.each([
  // limit, budget, output tokens, clamp, limit and budget after it
  [8_000, 4_000, 8_000, 5_000, 5_000, 4_000],
  [8_000, 4_000, 8_000, 4_000, 4_000, 3_999],
  [8_000, 4_000, 8_000, 1_025, 1_025, 1_024],
  [8_000, 4_000, 8_000, 1_024, 1_024, undefined],
  [8_000, 8_000, 16_000, 16_000, 8_000, 8_000],
  [8_000, 8_000, 16_000, 15_999, 8_000, 7_999],
  [8_000, 32_000, 40_000, 40_000, 8_000, 32_000],
  [8_000, 32_000, 40_000, 39_999, 8_000, 7_999],
  [8_000, 'many', undefined, 50_000, 8_000, 7_999],
])('max_tokens %d with a thinking budget of %p is %p, held to %d', (...row) => {
  const [limit, budget, outputTokens, maxTokens, limitAfter, budgetAfter] = row;
  const inBody = invoke(CLAUDE, { max_tokens: limit, ...thinking(budget) });
  expect(inBody.bound.outputTokens).toBe(outputTokens);
  const thinkingAfter = budgetAfter === undefined ? {} : thinking(budgetAfter);
  expect(encoded(inBody, { maxTokens })).toEqual({ max_tokens: limitAfter, ...thinkingAfter });

  for (const name of ['thinking', 'reasoning_config', 'reasoningConfig']) {
    const fields = { [name]: { budget_tokens: budget }, top_k: 5 };
    const inFields = converse({
      messages: HI,
      inferenceConfig: { maxTokens: limit },
      additionalModelRequestFields: fields,
    });
    expect(inFields.bound.outputTokens).toBe(outputTokens);
    expect(encoded(inFields, { maxTokens })).toEqual({
      messages: HI,
      inferenceConfig: { maxTokens: limitAfter },
      additionalModelRequestFields: {
        ...(budgetAfter !== undefined && { [name]: { budget_tokens: budgetAfter } }),
        top_k: 5,
      },
    });
  }
});

test.each([
  ['amazon.titan-embed-text-v2:0', { inputText: 'a' }],
  ['amazon.titan-embed-image-v1', { inputText: 'a' }],
  ['amazon.nova-2-multimodal-embeddings-v1:0', { singleEmbeddingParams: { text: { value: 'a' } } }],
  ['cohere.embed-v4:0', { texts: ['a'], max_tokens: 5 }],
  ['cohere.rerank-v3-5:0', { query: 'a', documents: ['b'] }],
  ['amazon.rerank-v1:0', { query: 'a', documents: ['b'] }],
])('%s produces no tokens', (modelId, body) => {
  const request = invoke(modelId, body);
  expect(request.bound).toMatchObject({ outputTokens: 0, images: 0 });
  expect(request.canClamp).toBe(false);
  expect(encoded(request, { maxTokens: 1 })).toEqual(body);
});

test.each([
  ['amazon.titan-image-generator-v2:0', { imageGenerationConfig: { numberOfImages: 5 } }, 5],
  ['amazon.nova-canvas-v1:0', { imageGenerationConfig: { numberOfImages: 3 } }, 3],
  ['amazon.nova-canvas-v1:0', { imageGenerationConfig: { numberOfImages: 2, NumberOfImages: 4 } }, 4],
  ['amazon.nova-canvas-v1:0', { imageGenerationConfig: { quality: 'standard' } }, 1],
  ['amazon.nova-canvas-v1:0', { imageGenerationConfig: { numberOfImages: '3' } }, 10],
  ['amazon.nova-canvas-v1:0', {}, 1],
  ['stability.stable-diffusion-xl-v1', { samples: 4 }, 4],
  ['stability.sd3-5-large-v1:0', { prompt: 'a' }, 1],
])('images of %s: %j', (modelId, body, images) => {
  expect(invoke(modelId, body).bound).toMatchObject({ outputTokens: 0, images });
  expect(invoke(modelId, body).canClamp).toBe(false);
});

test('an unknown model is asked for as many images as its body says', () => {
  expect(invoke('', { imageGenerationConfig: { numberOfImages: 3 } }).bound.images).toBe(3);
  expect(invoke('', { imageGenerationConfig: {} }).bound.images).toBe(1);
  expect(invoke('', { prompt: 'a' }).bound.images).toBe(0);
  expect(invoke('', { prompt: 'a' }).canClamp).toBe(false);
});

test('count-tokens is free, and never touched', () => {
  const body = bytesOf('{"input":{"converse":{"messages":[]}},"input":{}}');
  const request = ModelRequest.read('count-tokens', CLAUDE, body);
  expect(request.bound).toEqual({ inputTokens: 0, outputTokens: 0, images: 0 });
  expect(request.encode({ maxTokens: 5, metadata: { a: 'b' } })).toBe(body);
});

test('what is not in the body has no bound: stored prompts, and conversations that are summed up first', () => {
  const compact = { context_management: { edits: [{ type: 'compact_20260112' }] } };
  for (const request of [
    converse({}),
    converse({ promptVariables: { a: { text: 'b' } }, inferenceConfig: { maxTokens: 5 } }),
    invoke(CLAUDE, { max_tokens: 5, messages: said('a'), ...compact }),
    converse({ messages: HI, inferenceConfig: { maxTokens: 5 }, additionalModelRequestFields: compact }),
  ]) {
    expect(request.bound).toEqual({ inputTokens: UNBOUNDED_INPUT, outputTokens: undefined, images: 0 });
    expect(request.canClamp).toBe(false);
  }
  const clear = { context_management: { edits: [{ type: 'clear_tool_uses_20250919' }] } };
  expect(invoke(CLAUDE, { max_tokens: 5, messages: said('a'), ...clear }).bound.outputTokens).toBe(5);
});

// --- Input -------------------------------------------------------------------------------------------------------

type Kind = 'text' | 'image' | 'unbounded';

function kindOf(request: ModelRequest, body: unknown): Kind {
  const { inputTokens } = request.bound;
  if (inputTokens === UNBOUNDED_INPUT) return 'unbounded';
  if (inputTokens >= bytesOf(body).length) return 'text';
  expect(inputTokens).toBeGreaterThanOrEqual(5_000);
  expect(inputTokens).toBeLessThan(ONE_IMAGE_MAX);
  return 'image';
}

const bytes = { source: { bytes: BASE64 } };
const s3 = { source: { s3Location: { uri: 's3://bucket/key' } } };
const CONVERSE_BLOCKS: [block: object, kind: Kind][] = [
  [{ text: BASE64 }, 'text'],
  [{ image: { format: 'png', ...bytes } }, 'image'],
  [{ image: { format: 'png', ...s3 } }, 'unbounded'],
  [{ image: { format: 'png', source: { bytes: BASE64, Bytes: BASE64 } } }, 'unbounded'],
  [{ Image: { format: 'png', ...bytes } }, 'unbounded'],
  [{ image: BASE64 }, 'unbounded'],
  [{ document: { format: 'pdf', name: 'a', ...bytes } }, 'unbounded'],
  [{ document: { format: 'pdf', name: 'a', ...s3 } }, 'unbounded'],
  [{ document: { format: 'txt', name: 'a', source: { text: BASE64 } } }, 'text'],
  [{ document: { format: 'txt', name: 'a', source: { content: [{ text: BASE64 }] } } }, 'text'],
  [{ video: { format: 'mp4', ...bytes } }, 'unbounded'],
  [{ audio: { format: 'mp3', ...bytes } }, 'unbounded'],
  [{ hologram: bytes }, 'unbounded'],
  [{ cachePoint: { type: 'default' }, text: BASE64 }, 'text'],
  [{ guardContent: { image: { format: 'png', ...bytes } } }, 'image'],
  [{ guardContent: { text: { text: BASE64 } } }, 'text'],
  [{ toolUse: { toolUseId: 't', name: 'n', input: { image: bytes, document: bytes } } }, 'text'],
  [{ toolResult: { toolUseId: 't', content: [{ image: { format: 'png', ...bytes } }] } }, 'image'],
  [{ toolResult: { toolUseId: 't', content: [{ json: { image: bytes } }] } }, 'text'],
  [{ toolResult: { toolUseId: 't', content: [{ document: { format: 'pdf', ...bytes } }] } }, 'unbounded'],
  [{ toolResult: { toolUseId: 't', content: [{ video: { format: 'mp4', ...s3 } }] } }, 'unbounded'],
  [{ reasoningContent: { redactedContent: BASE64 } }, 'text'],
];

test.each(CONVERSE_BLOCKS)('in Converse and Nova %# is bounded as it should', (block, kind) => {
  const body = { messages: said([block, { text: 'a' }]) };
  for (const modelId of [CLAUDE, NOVA, '']) expect(kindOf(converse(body, modelId), body)).toBe(kind);
  expect(kindOf(invoke(NOVA, body), body)).toBe(kind);
  const upperCase = { Messages: body.messages };
  expect(kindOf(invoke(NOVA, upperCase), upperCase)).toBe(kind);
});

test('system prompts, tools and additional fields of Converse', () => {
  const bodies: [object, Kind][] = [
    [{ system: [{ guardContent: { image: { format: 'png', ...bytes } } }] }, 'image'],
    [{ system: [{ text: BASE64 }] }, 'text'],
    [{ system: [{ video: bytes }] }, 'unbounded'],
    [
      { toolConfig: { tools: [{ toolSpec: { name: BASE64, inputSchema: { json: { image: {} } } } }] } },
      'text',
    ],
    [{ toolConfig: { tools: [{ systemTool: { name: 'nova_grounding' } }] } }, 'unbounded'],
    [{ additionalModelRequestFields: { tools: [{ type: 'computer_20250124', name: BASE64 }] } }, 'unbounded'],
    [{ additionalModelRequestFields: { tools: [{ type: 'web_search_20250305' }] } }, 'unbounded'],
    [{ additionalModelRequestFields: { any: [{ thing: BASE64 }] } }, 'unbounded'],
    [{ additionalModelRequestFields: { any: 's3://bucket/key' } }, 'unbounded'],
  ];
  for (const [body, kind] of bodies) {
    const whole = { messages: HI, ...body };
    expect(kindOf(converse(whole), whole)).toBe(kind);
  }
});

const base64 = { type: 'base64', media_type: 'image/png', data: BASE64 };
const ANTHROPIC_BLOCKS: [block: object, kind: Kind][] = [
  [{ type: 'text', text: BASE64 }, 'text'],
  [{ type: 'image', source: base64 }, 'image'],
  [{ type: 'image', source: { type: 'url', url: 'https://a.example/b.png' } }, 'unbounded'],
  [{ type: 'image', source: { type: 'file', file_id: 'f' } }, 'unbounded'],
  [{ type: 'document', source: { ...base64, media_type: 'application/pdf' } }, 'unbounded'],
  [{ type: 'document', source: { type: 'url', url: 'https://a.example/b.pdf' } }, 'unbounded'],
  [{ type: 'document', source: { type: 'file', file_id: 'f' } }, 'unbounded'],
  [{ type: 'document', source: { type: 'text', data: BASE64 } }, 'text'],
  [{ type: 'document', source: { type: 'content', content: [{ type: 'image', source: base64 }] } }, 'image'],
  [{ type: 'tool_use', id: 't', name: 'n', input: { type: 'image', source: base64 } }, 'text'],
  [{ type: 'tool_result', tool_use_id: 't', content: [{ type: 'image', source: base64 }] }, 'image'],
  [{ type: 'tool_result', tool_use_id: 't', content: BASE64 }, 'text'],
  [{ type: 'tool_result', tool_use_id: 't', content: [{ type: 'document', source: base64 }] }, 'unbounded'],
  [{ type: 'thinking', thinking: BASE64, signature: 's' }, 'text'],
  [{ type: 'hologram', source: base64 }, 'unbounded'],
  [{ type: 'container_upload', file_id: 'f' }, 'unbounded'],
];

test.each(ANTHROPIC_BLOCKS)('in a body of Anthropic %# is bounded as it should', (block, kind) => {
  const body = { max_tokens: 5, messages: said([{ type: 'text', text: 'a' }, block]) };
  expect(kindOf(invoke(CLAUDE, body), body)).toBe(kind);
});

const dataUrl = `data:image/png;base64,${BASE64}`;

test.each<[modelId: string, body: object, kind: Kind]>([
  [PIXTRAL, { messages: said([{ type: 'image_url', image_url: { url: dataUrl } }]) }, 'image'],
  [PIXTRAL, { messages: said([{ type: 'image_url', image_url: dataUrl }]) }, 'image'],
  [
    PIXTRAL,
    { messages: said([{ type: 'image_url', image_url: { url: 'https://a.example/b' } }]) },
    'unbounded',
  ],
  [OSS, { messages: said([{ type: 'input_audio', input_audio: { data: BASE64 } }]) }, 'unbounded'],
  [OSS, { messages: said([{ type: 'file', file: { file_data: BASE64 } }]) }, 'unbounded'],
  [
    OSS,
    { messages: said([{ type: 'image_url', image_url: { url: `data:application/pdf;base64,${BASE64}` } }]) },
    'unbounded',
  ],
  [OSS, { messages: said(dataUrl) }, 'text'],
  ['stability.sd3-5-large-v1:0', { image: 'S3://bucket/key' }, 'unbounded'],
  [OSS, { messages: said([{ type: 'text', text: dataUrl }]) }, 'text'],
  ['amazon.titan-embed-image-v1', { inputText: 'a', inputImage: BASE64 }, 'image'],
  ['amazon.titan-embed-image-v1', { inputText: BASE64 }, 'text'],
  ['amazon.titan-embed-text-v2:0', { inputText: BASE64 }, 'text'],
  ['amazon.titan-image-generator-v2:0', { inPaintingParams: { image: BASE64, maskPrompt: 'a' } }, 'image'],
  ['amazon.nova-canvas-v1:0', { textToImageParams: { conditionImage: BASE64 } }, 'image'],
  ['amazon.nova-canvas-v1:0', { imageVariationParams: { images: [BASE64] } }, 'image'],
  ['stability.sd3-5-large-v1:0', { prompt: 'a', image: BASE64 }, 'image'],
  ['stability.stable-diffusion-xl-v1', { init_image: BASE64 }, 'image'],
  ['stability.sd3-5-large-v1:0', { prompt: BASE64 }, 'text'],
  ['cohere.rerank-v3-5:0', { query: 'a', documents: [{ image: BASE64 }] }, 'text'],
  ['meta.llama3-2-11b-instruct-v1:0', { prompt: 'a', images: [BASE64] }, 'image'],
  ['meta.llama3-2-11b-instruct-v1:0', { prompt: BASE64 }, 'text'],
  ['cohere.embed-english-v3', { images: [dataUrl] }, 'image'],
  ['cohere.embed-v4:0', { inputs: [{ content: [{ type: 'image_url', image_url: dataUrl }] }] }, 'image'],
  ['cohere.embed-v4:0', { texts: [BASE64] }, 'text'],
  ['amazon.nova-2-multimodal-embeddings-v1:0', { singleEmbeddingParams: { image: bytes } }, 'image'],
  ['amazon.nova-2-multimodal-embeddings-v1:0', { singleEmbeddingParams: { video: bytes } }, 'unbounded'],
  ['amazon.nova-2-multimodal-embeddings-v1:0', { singleEmbeddingParams: { text: s3 } }, 'unbounded'],
  [
    'amazon.nova-2-multimodal-embeddings-v1:0',
    { singleEmbeddingParams: { text: { value: BASE64 } } },
    'text',
  ],
  ['twelvelabs.marengo-embed-2-7-v1:0', { inputType: 'text', inputText: 'a' }, 'unbounded'],
  ['newcomer.model-v1', { prompt: 'plain words' }, 'text'],
  ['newcomer.model-v1', { prompt: 'plain words', picture: BASE64 }, 'unbounded'],
  ['newcomer.model-v1', { prompt: 'plain words', picture: dataUrl }, 'unbounded'],
  ['', { messages: said([{ type: 'text', text: 'a' }]) }, 'text'],
  ['', { messages: said([{ type: 'image', source: { type: 'file', file_id: 'f' } }]) }, 'unbounded'],
  ['', { image: { source: { s3Location: { uri: 's3://bucket/key' } } } }, 'unbounded'],
])('input of %s %# is bounded as it should', (modelId, body, kind) => {
  expect(kindOf(invoke(modelId, body), body)).toBe(kind);
});

test('an image counts at least what its family makes of the largest one, each for itself', () => {
  const block = { image: { format: 'png', ...bytes } };
  const tokens = (modelId: string, count: number): number =>
    converse({ messages: said(Array(count).fill(block)) }, modelId).bound.inputTokens;
  for (const [modelId, largest] of [
    [CLAUDE, 4_784],
    [NOVA, 126_500],
    ['qwen.qwen3-vl-235b-a22b', 16_384],
    ['', 126_500],
  ] as const) {
    expect(tokens(modelId, 1)).toBeGreaterThan(largest);
    expect(tokens(modelId, 3) - tokens(modelId, 1)).toBeGreaterThan(2 * largest);
  }
});

test('templates, tools and built-in tools have their price', () => {
  const of = (body: object): number =>
    invoke(CLAUDE, { max_tokens: 5, messages: said('a'), ...body }).bound.inputTokens;
  expect(of({})).toBeGreaterThan(1_000);
  expect(of({ tools: [] }) - of({})).toBeGreaterThan(1_000);
  expect(of({ output_config: { format: {} } }) - of({})).toBeGreaterThan(1_000);
  const tool = (type: string): number => of({ tools: [{ type, name: 'x' }] });
  expect(tool('computer_20250124') - tool('custom')).toBeGreaterThan(1_200);
  expect(tool('custom')).toBeLessThan(10_000);
  expect(tool('web_search_20250305')).toBe(UNBOUNDED_INPUT);
  const inFields = (fields: object): number =>
    converse({ messages: HI, additionalModelRequestFields: fields }).bound.inputTokens;
  expect(inFields({ tools: [{ type: 'bash_20250124' }] }) - inFields({})).toBeGreaterThan(4_000);
});

test('text that grows when a tokenizer normalises it is counted as it has become, escaped or not', () => {
  const bismillah = '\ufdfa';
  const grown = Buffer.byteLength(bismillah.normalize('NFKC')) * 10_000;
  expect(grown).toBeGreaterThan(300_000);
  const text = bismillah.repeat(10_000);
  for (const written of [
    text,
    text.replaceAll(bismillah, '\\ufdfa'),
    text.replaceAll(bismillah, '\\uFDFA'),
  ]) {
    expect(invoke(CLAUDE, `{"messages":[{"content":"${written}"}]}`).bound.inputTokens).toBeGreaterThan(
      grown,
    );
    expect(invoke(CLAUDE, `{"tools":[{"${written}":1}]}`).bound.inputTokens).toBeGreaterThan(grown);
  }
});

test('what is printed longer than it was written is counted longer', () => {
  const numbers = (number: string): string => `{"tools":[${Array(10_000).fill(number).join(',')}]}`;
  expect(invoke(CLAUDE, numbers('1e20')).bound.inputTokens).toBeGreaterThan(10_000 * 22);
  expect(invoke(CLAUDE, numbers('[]')).bound.inputTokens).toBeGreaterThan(10_000 * 10);
});

// --- Bytes -------------------------------------------------------------------------------------------------------

test.each(['', ' ', '[]', 'null', '1', '"a"', '{', '{"a":}', '{"a":1}}', '{"a":1,}', "{'a':1}", '{"a":NaN}'])(
  'what is not a JSON object is malformed: %s',
  (body) => {
    expect(codeOf(() => invoke(CLAUDE, body))).toBe('request.malformed_json');
    expect(codeOf(() => ModelRequest.read('count-tokens', '', bytesOf(body)))).toBe('request.malformed_json');
  },
);

test('other encodings are malformed, a byte order mark is not; errors never repeat what was sent', () => {
  expect(codeOf(() => ModelRequest.read('invoke', CLAUDE, Buffer.from('{"a":"é"}', 'latin1')))).toBe(
    'request.malformed_json',
  );
  expect(codeOf(() => ModelRequest.read('invoke', CLAUDE, Buffer.from('{}', 'utf16le')))).toBe(
    'request.malformed_json',
  );
  const marked = bytesOf('\ufeff{"max_tokens":5}');
  const request = ModelRequest.read('invoke', CLAUDE, marked);
  expect(request.bound.outputTokens).toBe(5);
  expect(request.encode({})).toBe(marked);
  expect(encoded(request, { maxTokens: 3 })).toEqual({ max_tokens: 3 });
  expect(() => invoke(CLAUDE, '{"canary')).toThrow(expect.not.stringContaining('canary'));
});

test('bodies that are nested beyond reason are refused, however deep', () => {
  const nested = (depth: number): string => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`;
  expect(codeOf(() => invoke(CLAUDE, nested(200)))).toBe('ok');
  expect(codeOf(() => invoke(CLAUDE, nested(300)))).toBe('request.too_complex');
  expect(codeOf(() => invoke('', nested(100_000)))).toBe('request.too_complex');
  expect(codeOf(() => invoke(CLAUDE, '{"a":'.repeat(300) + '1' + '}'.repeat(300)))).toBe(
    'request.too_complex',
  );
});

test('bodies of more members than any conversation are refused before anything is built', () => {
  const list = (members: number) => `{"a":[${'[],'.repeat(members - 2)}[]]}`;
  expect(codeOf(() => invoke(CLAUDE, list(200_000)))).toBe('ok');
  expect(codeOf(() => invoke(CLAUDE, list(200_001)))).toBe('request.too_complex');
  // Not JSON: had it been parsed first, it would be malformed.
  expect(codeOf(() => invoke(CLAUDE, `${list(200_001)}]`))).toBe('request.too_complex');
  expect(codeOf(() => invoke(CLAUDE, `{"a":[${'""'.repeat(500_000)}]}`))).toBe('request.malformed_json');
});

test('a view into a larger buffer is read as what it is', () => {
  const body = '{"max_tokens":5}';
  const view = new Uint8Array(bytesOf(`xx${body}yy`)).subarray(2, 2 + body.length);
  const request = ModelRequest.read('invoke', CLAUDE, view);
  expect(request.bound.outputTokens).toBe(5);
  expect(encoded(request, { maxTokens: 3 })).toEqual({ max_tokens: 3 });
});

const OURS = { 'mb-call': 'call_1' };

test('metadata is spliced in as the first member, all else byte for byte', () => {
  const rest = '"messages" : [ ], "a":1.0, "b":12345678901234567890 }';
  for (const prefix of [' { ', '\ufeff{\n']) {
    const sent = converse(`${prefix}${rest}`).encode({ metadata: OURS });
    const [start = '', end = ''] = prefix.split('{');
    expect(Buffer.from(sent).toString()).toBe(
      `${start}{"requestMetadata":{"mb-call":"call_1"},${end}${rest}`,
    );
  }
  expect(Buffer.from(converse(' { } ').encode({ metadata: OURS })).toString()).toBe(
    ' {"requestMetadata":{"mb-call":"call_1"} } ',
  );
});

test('metadata is added to the caller’s own, and ours win; what is no map is replaced', () => {
  const own = { mine: 'x', 'mb-call': 'forged' };
  const body = { messages: HI, requestMetadata: own };
  const merged = { messages: HI, requestMetadata: { mine: 'x', 'mb-call': 'call_1' } };
  expect(encoded(converse(body), { metadata: OURS })).toEqual(merged);
  const escaped = JSON.stringify(body).replace('requestMetadata', 'request\\u004detadata');
  expect(encoded(converse(escaped), { metadata: OURS })).toEqual(merged);
  expect(encoded(converse(body), { metadata: OURS, maxTokens: 5 })).toEqual({
    ...merged,
    inferenceConfig: { maxTokens: 5 },
  });
  for (const odd of [null, 'a', []])
    expect(encoded(converse({ requestMetadata: odd }), { metadata: OURS })).toEqual({
      requestMetadata: OURS,
    });
});

test('metadata has at most 16 entries; other operations and empty metadata change nothing', () => {
  const own = (count: number): object =>
    Object.fromEntries(Array.from({ length: count }, (_, at) => [`k${String(at)}`, 'v']));
  expect(codeOf(() => converse({ requestMetadata: own(15) }).encode({ metadata: OURS }))).toBe('ok');
  expect(codeOf(() => converse({ requestMetadata: own(16) }).encode({ metadata: OURS }))).toBe(
    'request.invalid',
  );
  const body = bytesOf({ messages: [], max_tokens: 5 });
  for (const operation of ['invoke', 'invoke-with-response-stream', 'count-tokens'] satisfies Operation[])
    expect(ModelRequest.read(operation, CLAUDE, body).encode({ metadata: OURS })).toBe(body);
  expect(ModelRequest.read('converse-stream', CLAUDE, body).encode({ metadata: {} })).toBe(body);
  expect(ModelRequest.read('converse-stream', CLAUDE, body).encode({ metadata: OURS })).not.toBe(body);
});

test('numbers stay as they were written when a body is written anew', () => {
  const body =
    '{"max_tokens":1e2,"seed":9007199254740993,"a":[1.0,-0,1e400,0.1,-12,1E5,123456789012345678901234567890,{"n":-1.50}],"t":"1.0 \\"2.0\\" 9007199254740993"}';
  const request = invoke(CLAUDE, body);
  expect(request.bound.outputTokens).toBe(100);
  expect(Buffer.from(request.encode({ maxTokens: 7 })).toString()).toBe(body.replace('1e2', '7'));
  expect(Buffer.from(invoke(CLAUDE, `{"max_tokens":1,${body.slice(1)}`).encode({})).toString()).toBe(body);
});

test.each([
  ['{"max_tokens":9999,"max_tokens":5}', { max_tokens: 5 }],
  ['{"max_tokens":5,"max_tokens":9999}', { max_tokens: 9_999 }],
  ['{"max\\u005ftokens":9999,"max_tokens":5}', { max_tokens: 5 }],
  ['{"max_tokens":5,"messages":[{"content":"long"}],"messages":[]}', { max_tokens: 5, messages: [] }],
  ['{"max_tokens":5,"a":[{"b":{"c":1,"\\u0063":2}}]}', { max_tokens: 5, a: [{ b: { c: 2 } }] }],
  ['{"max_tokens":5,"a\\"b":1,"a\\u0022b":2}', { max_tokens: 5, 'a"b': 2 }],
  ['{"max_tokens":5,"":1,"":2}', { max_tokens: 5, '': 2 }],
])('a member that is there twice is sent as it was read: %s', (body, read) => {
  const request = invoke(CLAUDE, body);
  expect(request.bound.outputTokens).toBe(read.max_tokens);
  const sent = Buffer.from(request.encode({}));
  expect(sent.toString()).toBe(JSON.stringify(read));
  expect(invoke(CLAUDE, sent.toString()).bound).toMatchObject({ outputTokens: read.max_tokens });
  expect(encoded(request, { maxTokens: 3 })).toEqual({ ...read, max_tokens: 3 });
});

test('a container that is there twice is one for clamp and metadata', () => {
  const body =
    '{"messages":[],"inferenceConfig":{"maxTokens":9999},"inferenceConfig":{"maxTokens":5},"requestMetadata":{"a":"b"},"requestMetadata":{}}';
  const request = converse(body);
  expect(request.bound.outputTokens).toBe(5);
  expect(encoded(request, { metadata: OURS })).toEqual({
    messages: [],
    inferenceConfig: { maxTokens: 5 },
    requestMetadata: OURS,
  });
  const sent = Buffer.from(request.encode({ maxTokens: 3 })).toString();
  expect(sent.match(/maxTokens/g)).toHaveLength(1);
});

test('colons and quotes within strings are no members', () => {
  for (const text of ['a:b', '\\":\\":', '\\\\', '\\\\\\":', '{\\"a\\":1}', ':'.repeat(100)]) {
    const body = bytesOf(`{"max_tokens":5,"a":"${text}","b:c":{"d":"\\\\"}}`);
    expect(ModelRequest.read('invoke', CLAUDE, body).encode({})).toBe(body);
  }
});

test('prototypes are neither read nor changed', () => {
  const body =
    '{"messages":[],"__proto__":{"max_tokens":5,"polluted":1},"inferenceConfig":{"__proto__":{"maxTokens":5}},"requestMetadata":{"__proto__":"x"}}';
  const request = converse(body);
  expect(request.bound.outputTokens).toBeUndefined();
  const sent = Buffer.from(
    request.encode({
      maxTokens: 7,
      metadata: JSON.parse('{"__proto__":"ours","k":"v"}') as Record<string, string>,
    }),
  ).toString();
  expect(sent).toBe(
    '{"messages":[],"__proto__":{"max_tokens":5,"polluted":1},"inferenceConfig":{"__proto__":{"maxTokens":5},"maxTokens":7},"requestMetadata":{"__proto__":"ours","k":"v"}}',
  );
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  expect(Object.getPrototypeOf({})).toBe(Object.prototype);
});

test.each([0, -1, 1.5, NaN, Infinity])('a clamp of %d is a mistake of ours', (maxTokens) => {
  expect(() => invoke(CLAUDE, {}).encode({ maxTokens })).toThrow(RangeError);
});

// --- Properties --------------------------------------------------------------------------------------------------

const anyName = fc.oneof(
  fc.string({ maxLength: 8 }),
  fc.constantFrom(
    'max_tokens',
    'maxTokens',
    'Max_Tokens',
    'n',
    'messages',
    'image',
    'text',
    '__proto__',
    '1',
    'thinking',
  ),
);
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.string({
    unit: fc.constantFrom('"', '\\', ':', '{', ',', '\ufdfa', 'é', '\u{1f600}', '\ud800', '\u0000'),
  }),
);
const anyValue = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 5 },
    anyText,
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(null, true),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(anyName, tie('value'), { maxKeys: 4 }),
  ),
})).value;
const anyBody = fc.dictionary(anyName, anyValue, { maxKeys: 6 });
const anyModel = fc.constantFrom(
  CLAUDE,
  NOVA,
  TITAN,
  OSS,
  PIXTRAL,
  'meta.llama3',
  'ai21.j2',
  'cohere.command',
  '',
);
const anyOperation = fc.constantFrom<Operation>('invoke', 'converse', 'converse-stream');

function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => [key, ...textsIn(inner)]);
}

test('property: no text is longer than the bound, and without changes the very bytes are sent', () => {
  fc.assert(
    fc.property(
      anyBody,
      anyModel,
      anyOperation,
      fc.constantFrom('', ' ', '\n\t'),
      (body, modelId, operation, space) => {
        const sent = Buffer.from(JSON.stringify(body, null, space));
        const request = ModelRequest.read(operation, modelId, sent);
        const texts = textsIn(body).map((text) => Buffer.byteLength(text.normalize('NFKC')));
        expect(request.bound.inputTokens).toBeGreaterThanOrEqual(
          texts.reduce((sum, length) => sum + length, 0),
        );
        expect(request.encode({})).toBe(sent);
      },
    ),
    { numRuns: 300 },
  );
});

const anyLimit = fc.oneof(
  fc.integer({ min: 1, max: 40_000 }),
  fc.constantFrom<unknown>(null, 0, -1, 2.5, 'x', 2 ** 40),
);
const anySettings = fc.record(
  {
    max_tokens: anyLimit,
    max_completion_tokens: anyLimit,
    max_gen_len: anyLimit,
    MaxTokens: anyLimit,
    inferenceConfig: fc.record({ maxTokens: anyLimit, max_new_tokens: anyLimit }, { requiredKeys: [] }),
    textGenerationConfig: fc.record({ maxTokenCount: anyLimit }, { requiredKeys: [] }),
    additionalModelRequestFields: fc.record(
      {
        max_tokens: anyLimit,
        n: fc.integer({ min: 1, max: 4 }),
        thinking: fc.record({ budget_tokens: anyLimit }),
      },
      { requiredKeys: [] },
    ),
    n: fc.integer({ min: 1, max: 5 }),
    thinking: fc.record({ type: fc.constant('enabled'), budget_tokens: anyLimit }),
  },
  { requiredKeys: [] },
);
const SETTINGS =
  /"(max_tokens|max_completion_tokens|max_gen_len|MaxTokens|maxTokens|max_new_tokens|maxTokenCount|budget_tokens)":[^,}]+,?|"(thinking|inferenceConfig|textGenerationConfig)":\{[^{}]*\},?/g;

/** The body without all that a clamp may change. */
function besides(body: unknown): string {
  return JSON.stringify(body).replace(SETTINGS, '').replaceAll(',}', '}');
}

test('property: what is clamped says so itself, allows no more than before, and is otherwise equal', () => {
  fc.assert(
    fc.property(
      anySettings,
      anyModel,
      anyOperation,
      fc.integer({ min: 1, max: 50_000 }),
      (settings, modelId, operation, maxTokens) => {
        const body = { messages: [], ...settings, tail: [{ max_tokens: 1, deep: { maxTokens: 'x' } }] };
        const request = ModelRequest.read(operation, modelId, bytesOf(body));
        const after = ModelRequest.read(operation, modelId, request.encode({ maxTokens }));
        if (!request.canClamp) {
          expect(encoded(request, { maxTokens })).toEqual(body);
          return;
        }
        expect(after.bound.outputTokens).toBeDefined();
        const copies = 20;
        const most = Math.max(maxTokens, maxTokens < copies ? copies : 0);
        expect(after.bound.outputTokens).toBeLessThanOrEqual(
          Math.min(most, request.bound.outputTokens ?? Infinity),
        );
        expect(after.encode({ maxTokens: Math.max(most, copies) })).toEqual(request.encode({ maxTokens }));
        expect(besides(encoded(request, { maxTokens }))).toBe(besides(body));
      },
    ),
    { numRuns: 500 },
  );
});

/** JSON with members that are there twice, some of them with escaped names. */
function written(value: unknown, twice: boolean): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((element) => written(element, twice)).join(',')}]`;
  const members = Object.entries(value).map(([key, inner]) => {
    const escaped = [...Array(key.length).keys()]
      .map((at) => `\\u${key.charCodeAt(at).toString(16).padStart(4, '0')}`)
      .join('');
    const member = `${JSON.stringify(key)}:${written(inner, twice)}`;
    return twice ? `"${escaped}":{"x":1},${member}` : member;
  });
  return `{${members.join(' , ')}}`;
}

test('property: with members that are there twice it is sent as it was read, each of them once', () => {
  fc.assert(
    fc.property(fc.dictionary(anyName, anyValue, { minKeys: 1, maxKeys: 6 }), anyModel, (body, modelId) => {
      const once = JSON.stringify(JSON.parse(written(body, false)));
      const request = invoke(modelId, written(body, true));
      const sent = Buffer.from(request.encode({}));
      expect(JSON.stringify(JSON.parse(sent.toString()))).toBe(once);
      const again = ModelRequest.read('invoke', modelId, sent);
      expect(again.encode({})).toBe(sent);
      expect(again.bound.outputTokens).toBe(request.bound.outputTokens);
      expect(again.bound.inputTokens).toBeLessThanOrEqual(request.bound.inputTokens);
    }),
    { numRuns: 200 },
  );
});

test('large bodies take milliseconds', () => {
  const messages = Array.from({ length: 1_000 }, () =>
    said([{ text: 'say "hello", 世界.\n'.repeat(45) }]),
  ).flat();
  const body = bytesOf({ messages, inferenceConfig: { maxTokens: 500 } });
  expect(body.length).toBeGreaterThan(1_000_000);
  const read = () => {
    for (let round = 0; round < 5; round += 1)
      ModelRequest.read('converse', CLAUDE, body).encode({ maxTokens: 5, metadata: OURS });
  };
  expect(cpuMsOf(read, 1_500)).toBeLessThan(1_500);
});
