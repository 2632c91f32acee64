import type { CredentialSource } from '../domain/credential.ts';
import { PROFILE_PREFIX } from '../domain/model.ts';
import { isTheOperators } from './model-id.ts';
import type { ModelRef } from './model-id.ts';
import type { PolicyTarget } from './policy.ts';
import type { ListedModel, ListedProfile, Probed } from './probes.ts';
import type { Finding } from './verdicts.ts';

/** What is known of a model in a region before the model itself is asked about. */
export interface Standing {
  /** What a policy has to name. */
  target?: PolicyTarget;
  /** Why there is no `target`. */
  noTarget?: string;
  /** The foundation model behind it. */
  baseModelId?: string;
  /** Set where the lists decide. */
  finding?: Finding;
}

interface Place {
  region: string;
  accountId: string | undefined;
  source: CredentialSource;
}

export interface Listings {
  models: Probed<ListedModel[]>;
  profiles: Probed<ListedProfile[]>;
}

const ITSELF: ReadonlySet<string> = new Set([
  'provisioned-model',
  'custom-model-deployment',
  'imported-model',
]);
const BY_NAME: ReadonlySet<string> = new Set(['foundation-model', 'inference-profile']);

/** Finds a model, profile or resource of the account in what AWS lists for a region. */
export function standingOf(model: ModelRef, place: Place, listings: Listings): Standing {
  if (isTheOperators(model, place.source)) return { finding: THE_OPERATORS };
  if (model.kind === 'id') {
    return /^[a-z0-9]{12}$/.test(model.id)
      ? { noTarget: 'Twelve characters may be several kinds of resource. Send the whole ARN.' }
      : standingById(model.id, place, listings);
  }
  const foreign = foreignArn(model, place);
  if (foreign !== undefined) return { finding: foreign };
  const { resource = '', id } = model;
  if (ITSELF.has(resource)) return { target: { kind: 'owned', arn: id } };
  if (BY_NAME.has(resource)) return standingById(id.slice(id.lastIndexOf('/') + 1), place, listings);
  if (resource === 'application-inference-profile') return ownProfile(id, listings);
  return { noTarget: 'For this kind of ARN there is no free question, and no policy is made.' };
}

const THE_OPERATORS: Finding = {
  verdict: 'model-not-available-to-account',
  probe: 'identifier',
  certainty: 'proven',
  why: 'Service defaults reach the models and inference profiles that AWS itself defines, and nothing that was made or bought in an account.',
};

function foreignArn(model: ModelRef, place: Place): Finding | undefined {
  const decided = { probe: 'identifier', certainty: 'proven' } as const;
  if (model.region !== place.region)
    return { ...decided, verdict: 'not-in-this-region', why: 'The ARN is of another region.' };
  if (model.accountId === undefined || model.accountId === place.accountId) return undefined;
  if (place.accountId === undefined) {
    const why =
      'The account of a Bedrock API key is not known, so ARNs with an account are not called with it.';
    return { verdict: 'unknown', probe: 'identifier', certainty: 'none', why };
  }
  const why = 'The ARN is of another AWS account than the credential.';
  return { ...decided, verdict: 'model-not-available-to-account', why };
}

function ownProfile(arn: string, { profiles }: Listings): Standing {
  if ('failure' in profiles) return { noTarget: PROFILES_UNKNOWN };
  const found = profiles.answer.find((profile) => profile.arn === arn);
  return found === undefined
    ? { finding: notHere('ListInferenceProfiles', 'The account has no such profile in this region.') }
    : profileStanding(found);
}

const PROFILES_UNKNOWN =
  'The credential may not list inference profiles, so the models behind this one are not known.';

function standingById(id: string, place: Place, listings: Listings): Standing {
  const { models, profiles } = listings;
  const model = 'answer' in models ? models.answer.find(({ modelId }) => modelId === id) : undefined;
  if (model !== undefined) return modelStanding(model, place, profiles);
  const profile =
    'answer' in profiles ? profiles.answer.find(({ profileId }) => profileId === id) : undefined;
  if (profile !== undefined) return profileStanding(profile);
  const whole = 'answer' in models && 'answer' in profiles;
  if (whole) return { finding: notHere('ListFoundationModels', NOT_LISTED) };
  return unlisted(id, place);
}

const NOT_LISTED = 'AWS lists neither a model nor an inference profile of this id in this region.';

function notHere(probe: 'ListFoundationModels' | 'ListInferenceProfiles', why: string): Finding {
  const fix = 'Check the id, and in which regions AWS offers the model.';
  return { verdict: 'not-in-this-region', probe, certainty: 'proven', why, fix };
}

/** What an id says by itself, where AWS would not list. The account is needed for the ARN of a profile. */
function unlisted(id: string, { region, accountId }: Place): Standing {
  if (!PROFILE_PREFIX.test(id))
    return { target: { kind: 'foundation-model', modelId: id, region }, baseModelId: id };
  const baseModelId = id.slice(id.indexOf('.') + 1);
  if (!id.startsWith('global.') || accountId === undefined)
    return { noTarget: PROFILES_UNKNOWN, baseModelId };
  const arn = `arn:aws:bedrock:${region}:${accountId}:inference-profile/${id}`;
  return { target: { kind: 'inference-profile', arn, modelArns: [] }, baseModelId };
}

function modelStanding(
  { modelId, inferenceTypes }: ListedModel,
  { region }: Place,
  profiles: Listings['profiles'],
): Standing {
  if (inferenceTypes.includes('ON_DEMAND'))
    return { target: { kind: 'foundation-model', modelId, region }, baseModelId: modelId };
  const noTarget = 'The model cannot be called by its own id. Ask again with the id of a profile.';
  if (!inferenceTypes.includes('INFERENCE_PROFILE')) {
    const why = 'In this region AWS offers the model with provisioned throughput only.';
    const fix = 'Name the ARN of a provisioned model, or choose another region.';
    return { noTarget, finding: { ...notHere('ListFoundationModels', why), fix } };
  }
  return { noTarget, finding: needsProfile(modelId, profiles) };
}

function needsProfile(modelId: string, profiles: Listings['profiles']): Finding {
  const suffix = `:foundation-model/${modelId}`;
  const found = 'answer' in profiles ? profiles.answer : [];
  const names = found
    .filter(({ modelArns }) => modelArns.some((arn) => arn.endsWith(suffix)))
    .map(({ kind, profileId, arn }) => (kind === 'inference-profile' ? profileId : arn));
  return {
    verdict: 'needs-inference-profile',
    probe: 'ListFoundationModels',
    certainty: 'proven',
    why: 'AWS offers the model in this region through inference profiles only, not on demand by its own id.',
    fix:
      names.length > 0
        ? `Name one of these instead: ${names.join(', ')}.`
        : 'Name an inference profile of the model. Which there are could not be listed.',
    profiles: names,
  };
}

function profileStanding({ kind, arn, modelArns }: ListedProfile): Standing {
  const baseModelId = modelArns[0]?.split(':foundation-model/')[1];
  return { target: { kind, arn, modelArns }, ...(baseModelId !== undefined && { baseModelId }) };
}
