import { ServiceError } from '../domain/errors.ts';
import type { Operation } from '../domain/usage.ts';
import { converseFamilyOf, familyOf } from './model-families.ts';
import { imagesOf } from './model-request-images.ts';
import { censusOf, inputTokensOf, UNBOUNDED_INPUT } from './model-request-input.ts';
import { membersWritten, parseBody, rewrite } from './model-request-json.ts';
import type { Edit } from './model-request-json.ts';
import {
  clampEdits,
  isClampable,
  outputTokensOf,
  plainName,
  readOutputLimits,
} from './model-request-output.ts';
import type { OutputLimits } from './model-request-output.ts';
import { asObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

export { UNBOUNDED_INPUT };

/** What one call can cost at most, read from its body. In tokens, and in images. */
export interface RequestBound {
  /**
   * No answer to this body can report more input tokens (all input buckets together: input, cache read, cache writes).
   * {@link UNBOUNDED_INPUT} where only the model's context bounds it: take the smaller of the two.
   */
  inputTokens: number;
  /** Output tokens the body allows; undefined where the body does not say and the model produces text; 0 for kinds that produce none. */
  outputTokens: number | undefined;
  /** Images it asks AWS to make. */
  images: number;
}

export interface RequestChanges {
  /** The answer may have no more output tokens than this, all answers together. A whole number, 1 or more. */
  maxTokens?: number;
  /** Written to the account's model invocation logs. In Converse a member of the body, elsewhere a header and not ours to set. */
  metadata?: Readonly<Record<string, string>>;
}

/** What is kept of a body besides its bytes. */
interface Facts {
  bound: RequestBound;
  output: OutputLimits;
  canClamp: boolean;
  /** A member is there twice: AWS may read another value than we did. */
  ambiguous: boolean;
  takesMetadata: boolean;
  /** The caller's own requestMetadata. */
  metadata: Json | undefined;
  isEmpty: boolean;
  serviceTier: string | undefined;
  latency: string | undefined;
}

/** Source: Converse, requestMetadata: 'Map Entries: Minimum number of 1 item. Maximum number of 16 items.' */
const METADATA_MAX = 16;
const OPENING_BRACE = 0x7b;
const NOTHING: RequestBound = { inputTokens: 0, outputTokens: 0, images: 0 };

/**
 * The body of one paid call, read once: what it can cost at most, and the bytes to send with the output held to that.
 *
 * A body that can be read in two ways is sent as we read it: with a member that is there twice, however its name is written, it is always
 * written anew. Of names that differ only in case or underscores the larger limit counts, and each of them is clamped.
 */
export class ModelRequest {
  readonly bound: RequestBound;
  /** Whether `encode({ maxTokens })` limits the output. Where it does not, `maxTokens` changes nothing. */
  readonly canClamp: boolean;
  /** Converse's own members; elsewhere they are headers. */
  readonly serviceTier: string | undefined;
  readonly latency: string | undefined;
  readonly #body: Uint8Array;
  readonly #facts: Facts;

  private constructor(body: Uint8Array, facts: Facts) {
    this.bound = facts.bound;
    this.canClamp = facts.canClamp;
    this.serviceTier = facts.serviceTier;
    this.latency = facts.latency;
    this.#body = body;
    this.#facts = facts;
  }

  /**
   * @param modelId of the foundation model, without the prefix of an inference profile; '' where it is not known
   * @throws ServiceError request.malformed_json when the body is not a JSON object | request.too_complex
   */
  static read(operation: Operation, modelId: string, body: Uint8Array): ModelRequest {
    return new ModelRequest(body, factsOf(operation, modelId, body));
  }

  /**
   * The bytes to send: the very bytes that came unless something changes. What is written anew keeps every number as it was written.
   * @throws ServiceError request.invalid when requestMetadata would have more entries than AWS takes
   */
  encode({ maxTokens, metadata }: RequestChanges): Uint8Array {
    const { output, ambiguous, metadata: own } = this.#facts;
    const edits = maxTokens !== undefined && this.canClamp ? clampEdits(output, maxTokens) : [];
    const untouched = edits.length === 0 && !ambiguous;
    if (metadata !== undefined && this.#takes(metadata)) {
      if (untouched && own === undefined) return this.#spliced(metadata);
      edits.push(metadataEdit(own ?? {}, metadata));
    } else if (untouched) return this.#body;
    return rewrite(this.#body, edits);
  }

  #takes(metadata: Readonly<Record<string, string>>): boolean {
    return this.#facts.takesMetadata && Object.keys(metadata).length > 0;
  }

  /** With requestMetadata as the first member; all else byte for byte. */
  #spliced(metadata: Readonly<Record<string, string>>): Uint8Array {
    const start = this.#body.indexOf(OPENING_BRACE) + 1;
    const member = `"requestMetadata":${JSON.stringify(metadata)}${this.#facts.isEmpty ? '' : ','}`;
    return Buffer.concat([this.#body.subarray(0, start), Buffer.from(member), this.#body.subarray(start)]);
  }
}

function factsOf(operation: Operation, modelId: string, body: Uint8Array): Facts {
  const { text, json } = parseBody(body);
  const converse = operation === 'converse' || operation === 'converse-stream';
  const family = converse ? converseFamilyOf(modelId) : familyOf(modelId);
  const census = censusOf(json, text.length === body.length && !text.includes('\\u'));
  const output = readOutputLimits(json, family);
  const facts = {
    output,
    takesMetadata: converse,
    ...metadataIn(json),
    isEmpty: census.members === 0,
    ...tierIn(json),
  };
  // Free of charge, whatever it says.
  if (operation === 'count-tokens') return { ...facts, bound: NOTHING, canClamp: false, ambiguous: false };
  const closed = isClosed(json, converse);
  return {
    ...facts,
    bound: {
      inputTokens: closed ? UNBOUNDED_INPUT : inputTokensOf(json, body.length, family, census),
      outputTokens: family.produces === 'text' ? outputTokensOf(output, closed) : 0,
      images: converse ? 0 : imagesOf(json, family),
    },
    canClamp: family.produces === 'text' && !closed && isClampable(output),
    ambiguous: membersWritten(text) !== census.members,
  };
}

function tierIn(json: Json): Pick<Facts, 'serviceTier' | 'latency'> {
  const [tier, latency] = [
    asObject(json['serviceTier'])?.['type'],
    asObject(json['performanceConfig'])?.['latency'],
  ];
  return {
    serviceTier: typeof tier === 'string' ? tier : undefined,
    latency: typeof latency === 'string' ? latency : undefined,
  };
}

function metadataIn(json: Json): Pick<Facts, 'metadata'> {
  const has = Object.hasOwn(json, 'requestMetadata');
  return { metadata: has ? (asObject(json['requestMetadata']) ?? {}) : undefined };
}

/** Whether what is paid for is not in the body: Converse without messages runs a prompt that is stored at AWS, with its own limit. */
function isClosed(json: Json, converse: boolean): boolean {
  return (converse && !Array.isArray(json['messages'])) || compacts(json);
}

/** Claude may be asked to sum up a long conversation before it answers: a second call within the call, which no limit in the body covers. */
function compacts(json: Json): boolean {
  return Object.keys(json).some((key) => {
    const name = plainName(key);
    if (name === 'contextmanagement') return JSON.stringify(json[key]).includes('"compact');
    const inner = name === 'additionalmodelrequestfields' ? asObject(json[key]) : undefined;
    return inner !== undefined && compacts(inner);
  });
}

/** The caller's entries stay, ours win. */
function metadataEdit(own: Json, ours: Readonly<Record<string, string>>): Edit {
  const value = Object.fromEntries([...Object.entries(own), ...Object.entries(ours)]);
  if (Object.keys(value).length > METADATA_MAX)
    throw new ServiceError(
      'request.invalid',
      `requestMetadata has too many entries: AWS takes ${String(METADATA_MAX)}, of which this service needs ${String(Object.keys(ours).length)}.`,
    );
  return { path: ['requestMetadata'], value };
}
