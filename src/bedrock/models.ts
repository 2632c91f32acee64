import type { ResolvedCredential } from '../domain/credential.ts';
import type { ReachedModel } from '../domain/model.ts';

export interface ModelQuestion {
  resolved: ResolvedCredential;
  /** Decoded and already validated: an id or an ARN. */
  modelId: string;
  signal: AbortSignal;
}

/** A model as AWS's control plane describes it. */
export interface ModelDescription {
  kind: 'foundation-model' | 'inference-profile' | 'provisioned-model';
  /** AWS's own short id, or the ARN where there is none. */
  modelId: string;
  /** AWS's word: `ACTIVE` or `LEGACY` for models, `ACTIVE` for profiles, `Creating`, `InService`, `Updating` or `Failed`. */
  status: string;
  /** Of profiles and provisioned models: the foundation model that answers, and how it is reached. */
  runs?: ReachedModel;
}
