import { modelIdOf } from './model-id.ts';
import { catalogueModel } from '../catalogue.ts';
import { AwsError, validationError } from '../wire/errors.ts';
import type { Signer } from '../identity/key-ring.ts';

/** A model that is not there for all. */
export interface Withheld {
  modelId: string;
  /** Only here; absent: everywhere. */
  region?: string;
  /** `account`: nobody agreed to its terms. `region`: AWS does not offer it. `on-demand`: only through a profile, as AWS says and the stand-in else does not. */
  from: 'account' | 'region' | 'on-demand';
}

/** What the pretended AWS does not let everyone have. */
export class ModelAccess {
  #withheld: Withheld[] = [];

  withhold(what: Withheld): void {
    this.#withheld.push(what);
  }

  forget(): void {
    this.#withheld = [];
  }

  isWithheld(modelId: string, region: string, from: Withheld['from']): boolean {
    return this.#withheld.some(
      (one) => one.modelId === modelId && one.from === from && (one.region ?? region) === region,
    );
  }

  /** @throws AwsError what Bedrock runtime answers whoever calls a model that is withheld; after IAM was asked */
  check(id: string, { region }: Signer): void {
    const direct = catalogueModel(id) !== undefined;
    const modelId = modelIdOf(id) ?? '';
    if (this.isWithheld(modelId, region, 'account'))
      throw new AwsError(
        'AccessDeniedException',
        "You don't have access to the model with the specified model ID.",
        { status: 403 },
      );
    if (direct && this.isWithheld(modelId, region, 'region'))
      throw validationError('The provided model identifier is invalid.');
    if (direct && this.isWithheld(modelId, region, 'on-demand'))
      throw validationError(
        `Invocation of model ID ${id} with on-demand throughput isn\u2019t supported. Retry your request with the ID or ARN of an inference profile that contains this model.`,
      );
  }
}
