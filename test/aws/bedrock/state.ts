import { ModelAccess } from './access.ts';
import { OwnedModels } from './owned.ts';
import { PromptCache } from './prompt-cache.ts';

/** What Bedrock remembers between calls. */
export interface BedrockState {
  cache: PromptCache;
  owned: OwnedModels;
  access: ModelAccess;
}

export function bedrockState(): BedrockState {
  return { cache: new PromptCache(), owned: new OwnedModels(), access: new ModelAccess() };
}
