import type { Request, Response } from 'express';
import type { Actor } from '../domain/audit.ts';
import type { CredentialChoice } from '../domain/credential-choice.ts';
import type { Merchant } from '../domain/merchant.ts';
import type { MerchantPrincipal, OperatorPrincipal } from '../domain/principal.ts';
import type { LogField } from '../observability/fields.ts';
import type { Services } from './services.ts';

/** The one wide event of a request: filled on the way, written once at the end. Units last in the names. */
export type RequestEvent = Partial<Record<LogField, string | number | boolean | undefined>>;

/** What every handler gets. `params`, `query` and `body` are checked. */
export interface PublicContext<Body = undefined, Query = undefined> {
  req: Request;
  res: Response;
  services: Services;
  requestId: string;
  event: RequestEvent;
  params: Readonly<Record<string, string>>;
  query: Query;
  body: Body;
}

/** A merchant's request: its token is of this merchant and has the scope of the route. */
export interface MerchantContext<Body = undefined, Query = undefined> extends PublicContext<Body, Query> {
  principal: MerchantPrincipal;
  merchant: Merchant;
  actor: Actor;
  /** How the request names its credential; `merchant-default` where it names none. */
  choice: CredentialChoice;
  /** `x-bedrock-region`: another region than the stored credential's own; checked by the resolver. */
  requestedRegion?: string;
  /** Fires when the caller is gone before the answer was complete. */
  callerGone: AbortSignal;
}

export interface OperatorContext<Body = undefined, Query = undefined> extends PublicContext<Body, Query> {
  principal: OperatorPrincipal;
  actor: Actor;
}
