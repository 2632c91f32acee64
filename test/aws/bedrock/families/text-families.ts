import { anthropic } from './anthropic.ts';
import { cohereCommand, cohereCommandR } from './cohere.ts';
import { llama } from './llama.ts';
import { mistral } from './mistral.ts';
import { nova } from './nova.ts';
import { titanText } from './titan-text.ts';
import type { TextFamily } from './family.ts';
import type { FamilyName } from '../../catalogue.ts';

/** The families that answer text; the other two embed. */
const TEXT_FAMILIES: Readonly<Record<Exclude<FamilyName, 'titan-embed' | 'cohere-embed'>, TextFamily>> = {
  anthropic,
  nova,
  'titan-text': titanText,
  'cohere-command': cohereCommand,
  'cohere-command-r': cohereCommandR,
  llama,
  mistral,
};

/** Undefined for models that embed. */
export function textFamily(name: FamilyName): TextFamily | undefined {
  return name === 'titan-embed' || name === 'cohere-embed' ? undefined : TEXT_FAMILIES[name];
}
