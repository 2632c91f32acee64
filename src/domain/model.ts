/** How a call reaches its foundation model. */
export const MODEL_REACHES = ['in-region', 'geographic', 'global', 'provisioned'] as const;
export type ModelReach = (typeof MODEL_REACHES)[number];

/**
 * How the ids of the inference profiles begin that AWS defines; a model's begins with its provider. The group is set for the global ones.
 * A new prefix is not split off, and so unpriced and in no policy, until it is listed here.
 */
export const PROFILE_PREFIX = /^(?:(global)|us|us-gov|eu|apac|ap|jp|au|ca|sa|me)\./;

/** The foundation model behind what a request names, and how it is reached. */
export interface ReachedModel {
  /** `amazon.nova-micro-v1:0`; where it is not known, what the request named. */
  modelId: string;
  profile: ModelReach;
}
