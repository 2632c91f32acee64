import type { ModelFamily } from './model-families.ts';
import { plainName } from './model-request-output.ts';
import { asObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** Blocks of Converse and Nova that are nothing but text, and those that a tool's result may have. */
const CONVERSE_TEXT = new Set([
  ...['text', 'json', 'cachePoint', 'toolUse', 'reasoningContent', 'citationsContent', 'searchResult'],
]);
/** Blocks of Anthropic and OpenAI that are nothing but text. */
const TYPED_TEXT = new Set([
  ...['text', 'thinking', 'redacted_thinking', 'tool_use', 'search_result', 'refusal', 'input_text'],
]);
/** What may be media where nothing is known of the model: base64, data: URLs, and what is to be fetched. */
const LIKE_MEDIA = /^(?:data:|https?:|s3:|[A-Za-z0-9+/\r\n]{24,}={0,2}$)/i;
const ELSEWHERE = /^(?:https?|s3):/i;

/**
 * The media in a request's input. Only an image that is where the model looks for images, with its bytes in the body, is taken out of the
 * text; everything that is neither that nor known to be text makes the input unbounded, kinds that AWS has yet to invent included.
 */
export class InputMedia {
  images = 0;
  /** Of the body; they are no text. */
  bytes = 0;
  unbounded = false;
  readonly #family: ModelFamily;

  constructor(family: ModelFamily) {
    this.#family = family;
  }

  read(json: Json): void {
    const { content, imageMembers } = this.#family;
    if (imageMembers !== undefined) this.#readNamed(json, imageMembers);
    if (content === 'opaque') this.unbounded = true;
    else if (content === 'unknown') this.#refuseLikeMedia(json);
    else if (content === 'nova-embedding') this.#readNovaEmbedding(json);
    this.#readConversation(json);
  }

  /** Names are compared without case: who reads `Messages` as `messages` sees the same. */
  #readConversation(json: Json): void {
    for (const key of Object.keys(json)) {
      const value = json[key];
      switch (plainName(key)) {
        case 'messages':
        case 'inputs':
          for (const message of listOf(value)) this.#readBlocks(asObject(message)?.['content']);
          break;
        case 'system':
          this.#readBlocks(value);
          break;
        case 'additionalmodelrequestfields':
          // Converse hands these on to the model as they are.
          this.#refuseLikeMedia(value);
          break;
        case 'promptvariables':
          // The prompt itself is stored at AWS.
          this.unbounded = true;
          break;
      }
    }
  }

  /** The content of a message or of a tool's result: text, or blocks. */
  #readBlocks(content: unknown): void {
    for (const element of listOf(content)) {
      const block = asObject(element);
      if (block === undefined) continue;
      if (this.#family.content === 'converse') this.#readConverseBlock(block);
      else this.#readTypedBlock(block);
    }
  }

  #readConverseBlock(block: Json): void {
    for (const key of Object.keys(block)) {
      const value = asObject(block[key]);
      if (CONVERSE_TEXT.has(key)) continue;
      if (key === 'image') this.#readConverseImage(value);
      else if (key === 'toolResult') this.#readBlocks(value?.['content']);
      else if (key === 'guardContent') this.#readBlocks([value]);
      else if (key !== 'document' || !isTextSource(value?.['source'])) this.unbounded = true;
    }
  }

  #readConverseImage(image: Json | undefined): void {
    const source = asObject(image?.['source']) ?? {};
    const [key, ...others] = Object.keys(source);
    this.#countImage(key === 'bytes' && others.length === 0 ? source['bytes'] : undefined);
  }

  /** A block of Anthropic's or OpenAI's. */
  #readTypedBlock(block: Json): void {
    switch (block['type']) {
      case 'image':
        this.#countImage(base64Of(block['source']));
        break;
      case 'image_url':
        this.#countImage(dataUrlOf(block['image_url']));
        break;
      case 'tool_result':
        this.#readBlocks(block['content']);
        break;
      case 'document':
        this.#readTypedDocument(asObject(block['source']));
        break;
      default:
        if (!isTypedText(block)) this.unbounded = true;
    }
  }

  #readTypedDocument(source: Json | undefined): void {
    if (source?.['type'] === 'content') this.#readBlocks(source['content']);
    else if (source?.['type'] !== 'text') this.unbounded = true;
  }

  #readNovaEmbedding(json: Json): void {
    const params = asObject(json['singleEmbeddingParams']) ?? {};
    for (const key of Object.keys(params)) {
      const value = asObject(params[key]);
      if (key === 'image') this.#readConverseImage(value);
      else if (value !== undefined && (key !== 'text' || 'source' in value)) this.unbounded = true;
    }
  }

  /** Images under names that these bodies use for nothing else. */
  #readNamed(value: unknown, names: ReadonlySet<string>): void {
    if (Array.isArray(value)) for (const element of value) this.#readNamed(element, names);
    const object = asObject(value) ?? {};
    for (const key of Object.keys(object)) {
      const inner = object[key];
      if (!names.has(key)) this.#readNamed(inner, names);
      else for (const image of typeof inner === 'string' ? [inner] : listOf(inner)) this.#countImage(image);
    }
  }

  #countImage(data: unknown): void {
    if (typeof data !== 'string' || ELSEWHERE.test(data)) {
      this.unbounded = true;
    } else {
      this.images += 1;
      this.bytes += data.length;
    }
  }

  #refuseLikeMedia(value: unknown): void {
    if (typeof value === 'string') {
      if (LIKE_MEDIA.test(value)) this.unbounded = true;
    } else if (typeof value === 'object' && value !== null) {
      for (const inner of Object.values(value)) this.#refuseLikeMedia(inner);
    }
  }
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** Whether a document's text is in the body as text. */
function isTextSource(source: unknown): boolean {
  const keys = Object.keys(asObject(source) ?? {});
  return keys.length === 1 && (keys[0] === 'text' || keys[0] === 'content');
}

function isTypedText(block: Json): boolean {
  const type = block['type'];
  if (type === undefined) return Object.keys(block).every((key) => key === 'text');
  return typeof type === 'string' && TYPED_TEXT.has(type);
}

function base64Of(source: unknown): unknown {
  const object = asObject(source);
  return object?.['type'] === 'base64' ? object['data'] : undefined;
}

/** `image_url` is the URL itself or an object that has it. */
function dataUrlOf(image: unknown): unknown {
  const url = typeof image === 'string' ? image : asObject(image)?.['url'];
  return typeof url === 'string' && url.startsWith('data:image/') ? url : undefined;
}
