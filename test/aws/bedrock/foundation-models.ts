import { CATALOGUE, catalogueModel, isEmbedding } from '../catalogue.ts';
import { json } from '../wire/answer.ts';
import { AwsError } from '../wire/errors.ts';
import type { CatalogueModel } from '../catalogue.ts';
import type { Answer } from '../wire/answer.ts';
import type { Call, World } from '../call.ts';

export function listFoundationModels({ request, signer }: Call, { bedrock }: World): Answer {
  const query = new URLSearchParams(request.query);
  const [provider, output, inference, custom] = [
    'byProvider',
    'byOutputModality',
    'byInferenceType',
    'byCustomizationType',
  ].map((n) => query.get(n));
  const found = CATALOGUE.filter((model) => {
    const summary = modelSummary(model, signer.region);
    return (
      (!provider || model.providerName.toLowerCase() === provider.toLowerCase()) &&
      (!output || summary.outputModalities.includes(output)) &&
      (!inference || (model.inferenceTypes as readonly string[]).includes(inference)) &&
      !custom &&
      !bedrock.access.isWithheld(model.modelId, signer.region, 'region')
    );
  });
  return json({ modelSummaries: found.map((model) => modelSummary(model, signer.region)) });
}

export function getFoundationModel({ resource = '', signer }: Call): Answer {
  return json({ modelDetails: modelSummary(known(resource), signer.region) });
}

/** What the account may use; it does not say that this principal may invoke. */
export function getFoundationModelAvailability({ resource = '', signer }: Call, { bedrock }: World): Answer {
  const { modelId } = known(resource);
  const withheld = (from: 'account' | 'region') => bedrock.access.isWithheld(modelId, signer.region, from);
  return json({
    modelId,
    agreementAvailability: { status: withheld('account') ? 'NOT_AVAILABLE' : 'AVAILABLE' },
    authorizationStatus: 'AUTHORIZED',
    entitlementAvailability: 'AVAILABLE',
    regionAvailability: withheld('region') ? 'NOT_AVAILABLE' : 'AVAILABLE',
  });
}

function modelSummary(model: CatalogueModel, region: string) {
  return {
    modelArn: `arn:aws:bedrock:${region}::foundation-model/${model.modelId}`,
    modelId: model.modelId,
    modelName: model.modelName,
    providerName: model.providerName,
    inputModalities: ['TEXT'],
    outputModalities: [isEmbedding(model) ? 'EMBEDDING' : 'TEXT'],
    responseStreamingSupported: !isEmbedding(model),
    customizationsSupported: [],
    inferenceTypesSupported: model.inferenceTypes,
    modelLifecycle: { status: 'ACTIVE' },
  };
}

function known(id: string): CatalogueModel {
  const model = catalogueModel(id.replace(/^arn:aws:bedrock:[a-z0-9-]+::foundation-model\//, ''));
  if (!model) throw notFound();
  return model;
}

function notFound(): AwsError {
  return new AwsError(
    'ResourceNotFoundException',
    'Could not resolve the foundation model from the provided model identifier.',
    { status: 404 },
  );
}
