/** How a call reaches its foundation model. */
export const MODEL_REACHES = ['in-region', 'geographic', 'global', 'provisioned'] as const;
export type ModelReach = (typeof MODEL_REACHES)[number];

/** The foundation model behind what a request names, and how it is reached. */
export interface ReachedModel {
  /** `amazon.nova-micro-v1:0`; where it is not known, what the request named. */
  modelId: string;
  profile: ModelReach;
}
