import type { ApiKeyId, MerchantId } from './ids.ts';

/** What a merchant's token may do. One per group of routes; a route names the one it needs in http/routes.ts. */
export const MERCHANT_SCOPES = [
  'invoke',
  'credentials:read',
  'credentials:write',
  'api-keys:read',
  'api-keys:write',
  'usage:read',
  'limits:write',
  'webhooks:write',
  'audit:read',
] as const;

/** What an operator's token may do. Never mixed with a merchant's scopes. */
export const OPERATOR_SCOPES = [
  'ops:merchants:read',
  'ops:merchants:write',
  'ops:usage:read',
  'ops:audit:read',
] as const;

export type MerchantScope = (typeof MERCHANT_SCOPES)[number];
export type OperatorScope = (typeof OPERATOR_SCOPES)[number];
export type Scope = MerchantScope | OperatorScope;

/** A merchant's caller. `subject` is what the audit trail shows: `api-key:<id>`, `jwt:<sub>`, `dev:<user>`. */
export interface MerchantPrincipal {
  kind: 'merchant';
  merchantId: MerchantId;
  subject: string;
  /** Set for API keys only; a session is bound to it and admission checks that it is still live. */
  apiKeyId?: ApiKeyId;
  /** Until when the token is taken, where only the token says so (JWTs): a stream ends with it. Milliseconds since 1970. */
  expiresAtMs?: number;
  scopes: readonly MerchantScope[];
}

export interface OperatorPrincipal {
  kind: 'operator';
  subject: string;
  /** What was sent; answers that are long in coming end with it. */
  keyId: ApiKeyId;
  scopes: readonly OperatorScope[];
}

export type Principal = MerchantPrincipal | OperatorPrincipal;
