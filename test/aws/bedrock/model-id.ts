import { AwsError, validationError } from '../wire/errors.ts';
import { GEOGRAPHY_REGIONS, catalogueModel } from '../catalogue.ts';
import type { CatalogueModel, Geography } from '../catalogue.ts';
import type { OwnedModels } from './owned.ts';
import type { Signer } from '../identity/key-ring.ts';

const ARN = /^arn:aws:bedrock:([a-z0-9-]*):(\d*):([a-z-]+)\/(.+)$/;
/** Resources of an account, named by exactly twelve characters. */
const OWNED = new Set([
  'provisioned-model',
  'application-inference-profile',
  'imported-model',
  'custom-model-deployment',
]);
const OWNED_ID = /^[a-z0-9]{12}$/;
/** What an owned resource runs when nobody said what it was made from. */
const OWNED_DEFAULT = 'anthropic.claude-3-5-haiku-20241022-v1:0';

/**
 * The model that an identifier means to this signer: a foundation id, a system profile of the signer's geography, or an ARN.
 * @throws AwsError ValidationException for an id that means nothing here; AccessDeniedException for an ARN of another account
 */
export function resolveModel(id: string, signer: Signer, owned: OwnedModels): CatalogueModel {
  const model = id.startsWith('arn:')
    ? resolveArn(id, signer, owned)
    : (catalogueModel(id) ?? resolveProfile(id, signer.region));
  if (!model) throw validationError('The provided model identifier is invalid.');
  return model;
}

/** The foundation model id that an id, a profile id or an ARN of either comes down to, in any region. */
export function modelIdOf(idOrArn: string): string | undefined {
  const id = idOrArn.slice(idOrArn.lastIndexOf('/') + 1);
  return (catalogueModel(id) ?? catalogueModel(id.slice(id.indexOf('.') + 1)))?.modelId;
}

export function resolveProfile(id: string, region: string): CatalogueModel | undefined {
  const dot = id.indexOf('.');
  const model = catalogueModel(id.slice(dot + 1));
  const geography = model?.profiles.find((name) => name === id.slice(0, dot));
  return geography && serves(geography, region) ? model : undefined;
}

/** A profile can be called from any region of its geography, also from those this catalogue's routing leaves out. */
export function serves(geography: Geography, region: string): boolean {
  const prefix = geography === 'apac' ? 'ap' : geography;
  return (
    geography === 'global' || region.startsWith(`${prefix}-`) || GEOGRAPHY_REGIONS[geography].includes(region)
  );
}

function resolveArn(arn: string, signer: Signer, owned: OwnedModels): CatalogueModel | undefined {
  const { region, account, kind, id } = partsOf(arn);
  if (region !== signer.region) return undefined;
  if (kind === 'foundation-model') return account === '' ? catalogueModel(id) : undefined;
  if (account !== signer.accountId) throw foreign(arn, signer);
  if (kind === 'inference-profile') return resolveProfile(id, region);
  return OWNED.has(kind) && OWNED_ID.test(id)
    ? catalogueModel(owned.modelBehind(arn) ?? OWNED_DEFAULT)
    : undefined;
}

function partsOf(arn: string): { region: string; account: string; kind: string; id: string } {
  const [, region = '', account = '', kind = '', id = ''] = ARN.exec(arn) ?? [];
  return { region, account, kind, id };
}

function foreign(arn: string, signer: Signer): AwsError {
  const message = `User: ${signer.arn} is not authorized to perform: bedrock:InvokeModel on resource: ${arn}`;
  return new AwsError('AccessDeniedException', message, { status: 403 });
}
