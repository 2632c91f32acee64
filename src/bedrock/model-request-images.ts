import type { ModelFamily } from './model-families.ts';
import { plainName } from './model-request-output.ts';
import { asObject } from './token-counts.ts';
import type { Json } from './token-counts.ts';

/** What is counted where a body says a number of images that AWS would not take: the most that any model makes at once. */
const IMAGES_MAX = 10;
const COUNTS = new Set(['numberofimages', 'samples']);

/**
 * The images that a body of InvokeModel asks for: one where it does not say. For a model that is not known, those that it says, if any.
 * Source: numberOfImages of Titan Image and Nova Canvas, samples of Stable Diffusion.
 */
export function imagesOf(json: Json, family: ModelFamily): number {
  const isKnown = family.content !== 'unknown';
  if (isKnown && family.produces !== 'images') return 0;
  let images = isKnown ? 1 : 0;
  for (const key of Object.keys(json)) {
    if (plainName(key) !== 'imagegenerationconfig') continue;
    images = Math.max(1, images, imagesIn(asObject(json[key]) ?? {}));
  }
  return Math.max(images, imagesIn(json));
}

function imagesIn(json: Json): number {
  return Object.keys(json)
    .filter((key) => COUNTS.has(plainName(key)) && json[key] !== null)
    .reduce((most, key) => Math.max(most, countOf(json[key])), 0);
}

function countOf(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : IMAGES_MAX;
}
