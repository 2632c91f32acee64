import { listAlerts } from './handlers/alerts/list.ts';
import { createApiKey } from './handlers/api-keys/create.ts';
import { listApiKeys } from './handlers/api-keys/list.ts';
import { revokeApiKey } from './handlers/api-keys/revoke.ts';
import { rollApiKey } from './handlers/api-keys/roll.ts';
import { auditCheckpoint } from './handlers/audit/checkpoint.ts';
import { exportAudit } from './handlers/audit/export.ts';
import { listAudit } from './handlers/audit/list.ts';
import { chat } from './handlers/chat/chat.ts';
import { activateCredential } from './handlers/credentials/activate.ts';
import { createCredential } from './handlers/credentials/create.ts';
import { freezeCredential, thawCredential } from './handlers/credentials/freeze.ts';
import { deleteCredential } from './handlers/credentials/delete.ts';
import { getCredential } from './handlers/credentials/get.ts';
import { getRotation } from './handlers/credentials/get-rotation.ts';
import { listCredentials } from './handlers/credentials/list.ts';
import { credentialPolicies } from './handlers/credentials/policies.ts';
import { rollBackCredential } from './handlers/credentials/rollback.ts';
import { rotateCredential } from './handlers/credentials/rotate.ts';
import { testCredential } from './handlers/credentials/test.ts';
import { updateCredential } from './handlers/credentials/update.ts';
import { getLimits } from './handlers/limits/get.ts';
import { putLimits } from './handlers/limits/put.ts';
import { testEnvironment } from './handlers/environment/test.ts';
import { initialize } from './handlers/initialize/initialize.ts';
import { wire } from './handlers/model/wire.ts';
import { approveAccount } from './handlers/ops/approve-account.ts';
import { opsAudit, opsAuditCheckpoint, opsAuditExport } from './handlers/ops/audit.ts';
import { closeMerchant } from './handlers/ops/close-merchant.ts';
import { opsFreezeCredential, opsThawCredential } from './handlers/ops/freeze-credential.ts';
import { createMerchant } from './handlers/ops/create-merchant.ts';
import { listMerchants } from './handlers/ops/list-merchants.ts';
import { createPlan, listPlans } from './handlers/ops/plans.ts';
import { opsPrices } from './handlers/ops/prices.ts';
import { updateMerchant } from './handlers/ops/update-merchant.ts';
import { resolveCall } from './handlers/ops/resolve-call.ts';
import { opsUnknown } from './handlers/ops/unknown.ts';
import { opsUsageVerify } from './handlers/ops/usage-verify.ts';
import { opsUsage } from './handlers/ops/usage.ts';
import { livez } from './handlers/service/livez.ts';
import { openapi } from './handlers/service/openapi.ts';
import { readyz } from './handlers/service/readyz.ts';
import { testPermissions } from './handlers/permissions/test.ts';
import { usageExport } from './handlers/usage/export.ts';
import { usageRecords } from './handlers/usage/records.ts';
import { usageReport } from './handlers/usage/report.ts';
import { usageVerify } from './handlers/usage/verify.ts';
import { createWebhook } from './handlers/webhooks/create.ts';
import { deleteWebhook } from './handlers/webhooks/delete.ts';
import { listDeliveries } from './handlers/webhooks/deliveries.ts';
import { listWebhooks } from './handlers/webhooks/list.ts';
import { replayDelivery } from './handlers/webhooks/replay.ts';
import { testWebhook } from './handlers/webhooks/test.ts';
import { route } from './route.ts';
import type { Route } from './route.ts';

const M = '/api/merchants/:id/bedrock';
const OPS_CREDENTIAL = '/api/ops/merchants/:id/credentials/:cid';

/**
 * Every route of the service, by traffic. What is not here is answered 404; what a token may do stands in the third column.
 * `*modelId` takes model ids raw or percent-encoded, slashes of ARNs included.
 */
export const ROUTES: readonly Route[] = [
  route('POST', `${M}/model/*modelId/converse`, 'invoke', wire('converse')),
  route('POST', `${M}/model/*modelId/converse-stream`, 'invoke', wire('converse-stream')),
  route('POST', `${M}/model/*modelId/invoke`, 'invoke', wire('invoke')),
  route(
    'POST',
    `${M}/model/*modelId/invoke-with-response-stream`,
    'invoke',
    wire('invoke-with-response-stream'),
  ),
  route('POST', `${M}/model/*modelId/count-tokens`, 'invoke', wire('count-tokens')),
  route('POST', `${M}/chat`, 'invoke', chat),
  route('POST', `${M}/initialize`, 'invoke', initialize),

  route('GET', `${M}/credentials`, 'credentials:read', listCredentials),
  route('POST', `${M}/credentials`, 'credentials:write', createCredential),
  route('GET', `${M}/credentials/:cid`, 'credentials:read', getCredential),
  route('PATCH', `${M}/credentials/:cid`, 'credentials:write', updateCredential),
  route('DELETE', `${M}/credentials/:cid`, 'credentials:write', deleteCredential),
  route('POST', `${M}/credentials/:cid/test`, 'credentials:write', testCredential),
  route('POST', `${M}/credentials/:cid/freeze`, 'credentials:write', freezeCredential),
  route('POST', `${M}/credentials/:cid/thaw`, 'credentials:write', thawCredential),
  route('POST', `${M}/credentials/:cid/activate`, 'credentials:write', activateCredential),
  route('GET', `${M}/credentials/:cid/policies`, 'credentials:read', credentialPolicies),
  route('GET', `${M}/credentials/:cid/rotation`, 'credentials:read', getRotation),
  route('POST', `${M}/credentials/:cid/rotate`, 'credentials:write', rotateCredential),
  route('POST', `${M}/credentials/:cid/rollback`, 'credentials:write', rollBackCredential),

  route('POST', `${M}/permissions/test`, 'invoke', testPermissions),
  route('GET', `${M}/environment/test`, 'credentials:read', testEnvironment),

  route('GET', `${M}/usage`, 'usage:read', usageReport),
  route('GET', `${M}/usage/records`, 'usage:read', usageRecords),
  route('GET', `${M}/usage/export`, 'usage:read', usageExport),
  route('GET', `${M}/usage/verify`, 'usage:read', usageVerify),
  route('GET', `${M}/limits`, 'usage:read', getLimits),
  route('PUT', `${M}/limits`, 'limits:write', putLimits),
  route('GET', `${M}/alerts`, 'usage:read', listAlerts),
  route('GET', `${M}/webhooks`, 'usage:read', listWebhooks),
  route('POST', `${M}/webhooks`, 'webhooks:write', createWebhook),
  route('DELETE', `${M}/webhooks/:wid`, 'webhooks:write', deleteWebhook),
  route('POST', `${M}/webhooks/:wid/test`, 'webhooks:write', testWebhook),
  route('GET', `${M}/webhooks/:wid/deliveries`, 'usage:read', listDeliveries),
  route('POST', `${M}/webhooks/:wid/deliveries/:did/replay`, 'webhooks:write', replayDelivery),
  route('GET', `${M}/audit`, 'audit:read', listAudit),
  route('GET', `${M}/audit/export`, 'audit:read', exportAudit),
  route('GET', `${M}/audit/checkpoint`, 'audit:read', auditCheckpoint),

  route('GET', `${M}/api-keys`, 'api-keys:read', listApiKeys),
  route('POST', `${M}/api-keys`, 'api-keys:write', createApiKey),
  route('DELETE', `${M}/api-keys/:kid`, 'api-keys:write', revokeApiKey),
  route('POST', `${M}/api-keys/:kid/roll`, 'api-keys:write', rollApiKey),

  route('GET', '/api/ops/merchants', 'ops:merchants:read', listMerchants),
  route('POST', '/api/ops/merchants', 'ops:merchants:write', createMerchant),
  route('PATCH', '/api/ops/merchants/:id', 'ops:merchants:write', updateMerchant),
  route('POST', '/api/ops/merchants/:id/close', 'ops:merchants:write', closeMerchant),
  route('POST', `${OPS_CREDENTIAL}/freeze`, 'ops:merchants:write', opsFreezeCredential),
  route('POST', `${OPS_CREDENTIAL}/thaw`, 'ops:merchants:write', opsThawCredential),
  route('POST', '/api/ops/merchants/:id/calls/:callId/resolve', 'ops:merchants:write', resolveCall),
  route(
    'POST',
    '/api/ops/merchants/:id/credentials/:cid/approve-account',
    'ops:merchants:write',
    approveAccount,
  ),
  route('GET', '/api/ops/plans', 'ops:merchants:read', listPlans),
  route('POST', '/api/ops/plans', 'ops:merchants:write', createPlan),
  route('GET', '/api/ops/prices', 'ops:usage:read', opsPrices),
  route('GET', '/api/ops/usage', 'ops:usage:read', opsUsage),
  route('GET', '/api/ops/unknown', 'ops:usage:read', opsUnknown),
  route('GET', '/api/ops/usage/verify', 'ops:usage:read', opsUsageVerify),
  route('GET', '/api/ops/audit', 'ops:audit:read', opsAudit),
  route('GET', '/api/ops/audit/export', 'ops:audit:read', opsAuditExport),
  route('GET', '/api/ops/audit/checkpoint', 'ops:audit:read', opsAuditCheckpoint),

  route('GET', '/livez', 'public', livez),
  route('GET', '/readyz', 'public', readyz),
  route('GET', '/openapi.json', 'public', openapi),
];
