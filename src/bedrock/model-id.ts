import type { CredentialSource } from '../domain/credential.ts';
import { ServiceError } from '../domain/errors.ts';

/** A model as a request names it. `region` and `accountId` are those of an ARN; an id on its own has neither. */
export interface ModelRef {
  id: string;
  kind: 'id' | 'arn';
  resource?: string;
  region?: string;
  accountId?: string;
}

const LENGTH_MAX = 2_048;

/**
 * Ids without an ARN: foundation models (`provider.name-v1:0`), inference profiles (`us.provider.name`), and the 12 characters of provisioned,
 * imported and custom-deployment ids. Source: pattern InvokeModelIdentifier of the service model, of which this is the part that can be a
 * plain id. One segment, no `/`, no `..`, and no run of letters and digits as long as those of keys and tokens: ids are kept and shown.
 */
const PLAIN_ID = /^(?!.*[a-zA-Z0-9]{33})[a-zA-Z0-9](?:[a-zA-Z0-9:_-]|\.(?!\.)){0,255}$/;

/** The kinds of ARN that Bedrock runtime invokes. Bedrock's own foundation models carry no account. */
const ARN =
  /^arn:(aws|aws-us-gov|aws-cn):(bedrock|sagemaker):([a-z0-9-]{1,20}):([0-9]{12})?:([a-z-]+)\/([a-zA-Z0-9:._/-]{1,255})$/;
const RESOURCES: Readonly<Record<string, RegExp>> = {
  'foundation-model': /^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,3}(:[a-z0-9-]{1,63}){0,2}$/,
  'inference-profile': /^[a-zA-Z0-9:.-]{1,255}$/,
  'application-inference-profile': /^[a-zA-Z0-9:.-]{1,255}$/,
  'provisioned-model': /^[a-z0-9]{12}$/,
  'custom-model': /^[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,3}(:[a-z0-9-]{1,63}){0,2}\/[a-z0-9]{12}$/,
  'custom-model-deployment': /^[a-z0-9]{12}$/,
  'imported-model': /^[a-z0-9]{12}$/,
  prompt: /^[0-9A-Z]{10}(:[0-9]{1,5})?$/,
  'prompt-router': /^[a-zA-Z0-9:.-]{1,255}$/,
  'default-prompt-router': /^[a-zA-Z0-9:.-]{1,255}$/,
  endpoint: /^[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,62}$/,
};

/**
 * Reads a model id or ARN, decoded. Nothing that is not in Bedrock's own grammar becomes part of a URL.
 * @throws ServiceError model.id_invalid
 */
export function parseModelId(text: string): ModelRef {
  if (text.length > LENGTH_MAX) throw invalid('it is longer than 2048 characters');
  if (PLAIN_ID.test(text)) return { id: text, kind: 'id' };
  const arn = ARN.exec(text);
  if (arn === null)
    throw invalid('it is neither a model id such as amazon.nova-micro-v1:0 nor a Bedrock ARN');
  const [, , service = '', region = '', accountId, resource = '', name = ''] = arn;
  if (!isInvocable(service, resource, name))
    throw invalid('its ARN does not name something that Bedrock can invoke');
  checkAccount(resource, accountId);
  return { id: text, kind: 'arn', resource, region, ...(accountId !== undefined && { accountId }) };
}

function isInvocable(service: string, resource: string, name: string): boolean {
  const ofItsService = (service === 'sagemaker') === (resource === 'endpoint');
  return (
    ofItsService &&
    Object.hasOwn(RESOURCES, resource) &&
    RESOURCES[resource]?.test(name) === true &&
    !name.includes('..')
  );
}

/** The models that Bedrock itself offers belong to no account; all else belongs to one. */
function checkAccount(resource: string, accountId: string | undefined): void {
  const ofNobody = resource === 'foundation-model';
  if (ofNobody && accountId !== undefined) {
    throw invalid(
      'the ARN of a foundation model has no account id (arn:aws:bedrock:REGION::foundation-model/ID)',
    );
  }
  if (!ofNobody && accountId === undefined) throw invalid('its ARN lacks the account id');
}

/**
 * What lies in the operator's own account and was bought or made there: nothing says for which merchant, so service defaults reach none of it.
 * What AWS defines in every account (`us.…`, `global.…`) is nobody's.
 */
export function isTheOperators({ id, kind, resource }: ModelRef, source: CredentialSource): boolean {
  if (source !== 'service-default') return false;
  // Ids of twelve characters are of such things, too; all others begin with a provider or a profile's prefix.
  return kind === 'id'
    ? !id.includes('.')
    : resource !== 'foundation-model' && resource !== 'inference-profile';
}

/**
 * An ARN must be of the region and the account that the credential signs for: nobody reaches another's provisioned throughput through us.
 * An account that is not known (Bedrock API keys) cannot be compared, so ARNs with an account are refused then.
 * @throws ServiceError model.foreign_arn
 */
export function assertModelInScope(
  model: ModelRef,
  scope: { region: string; accountId: string | undefined; source: CredentialSource },
): void {
  if (isTheOperators(model, scope.source))
    throw new ServiceError(
      'model.foreign_arn',
      'Service defaults reach the models and inference profiles that AWS itself defines, and nothing that was made or bought in an account. ' +
        'Use the credential of the account that owns it.',
    );
  if (model.kind === 'id') return;
  if (model.region !== scope.region) {
    throw new ServiceError(
      'model.foreign_arn',
      `This ARN is of another region than the credential (${scope.region}). Use an ARN of that region, or a credential for the ARN's.`,
    );
  }
  if (model.accountId !== undefined && model.accountId !== scope.accountId) {
    throw new ServiceError(
      'model.foreign_arn',
      'This ARN is of another AWS account than the credential. Use the credential of the account that owns it.',
    );
  }
}

function invalid(why: string): ServiceError {
  return new ServiceError('model.id_invalid', `The model id in the path is not valid: ${why}.`);
}
