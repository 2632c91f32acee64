import type { z } from 'zod';
import type { MerchantScope, OperatorScope } from '../domain/principal.ts';
import type { MerchantContext, OperatorContext, PublicContext } from './context.ts';

/** What a handler answers. `undefined` means that it has written the answer itself (streams, AWS-shaped routes). */
export interface Reply {
  status: number;
  /** Becomes JSON; a Buffer is JSON already. */
  body?: unknown;
  headers?: Readonly<Record<string, string>>;
}

interface EndpointBase<Body, Query> {
  summary: string;
  /** Absent: the route takes no body. `bytes` hands the body on unread. */
  body?: z.ZodType<Body> | 'bytes';
  query?: z.ZodType<Query>;
  /** The body may also name a credential (awsAccessKeyId..., credentialId, session, useServiceDefaults). */
  namesCredential?: boolean;
  /** A paid call: the ledger's admission says whether token and merchant still hold, so both may come from memory. */
  paid?: boolean;
  reply: { status: number; schema?: z.ZodType; description: string };
}

export interface PublicEndpoint<Body = undefined, Query = undefined> extends EndpointBase<Body, Query> {
  kind: 'public';
  handle: (context: PublicContext<Body, Query>) => Promise<Reply | undefined>;
}

export interface MerchantEndpoint<Body = undefined, Query = undefined> extends EndpointBase<Body, Query> {
  kind: 'merchant';
  handle: (context: MerchantContext<Body, Query>) => Promise<Reply | undefined>;
}

export interface OperatorEndpoint<Body = undefined, Query = undefined> extends EndpointBase<Body, Query> {
  kind: 'operator';
  handle: (context: OperatorContext<Body, Query>) => Promise<Reply | undefined>;
}

/* eslint-disable @typescript-eslint/no-explicit-any -- the table holds endpoints of every body and query type */
type AnyPublicEndpoint = PublicEndpoint<any, any>;
type AnyMerchantEndpoint = MerchantEndpoint<any, any>;
type AnyOperatorEndpoint = OperatorEndpoint<any, any>;
/* eslint-enable @typescript-eslint/no-explicit-any */
export type AnyEndpoint = AnyPublicEndpoint | AnyMerchantEndpoint | AnyOperatorEndpoint;

export function publicEndpoint<Body = undefined, Query = undefined>(
  endpoint: Omit<PublicEndpoint<Body, Query>, 'kind'>,
): PublicEndpoint<Body, Query> {
  return { kind: 'public', ...endpoint };
}

export function merchantEndpoint<Body = undefined, Query = undefined>(
  endpoint: Omit<MerchantEndpoint<Body, Query>, 'kind'>,
): MerchantEndpoint<Body, Query> {
  return { kind: 'merchant', ...endpoint };
}

export function operatorEndpoint<Body = undefined, Query = undefined>(
  endpoint: Omit<OperatorEndpoint<Body, Query>, 'kind'>,
): OperatorEndpoint<Body, Query> {
  return { kind: 'operator', ...endpoint };
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
export type Permission = 'public' | MerchantScope | OperatorScope;

/** A row of the table. `shape` says in whose words errors are: problem documents, or AWS's. */
export interface Route {
  method: Method;
  path: string;
  permission: Permission;
  endpoint: AnyEndpoint;
  shape: 'json' | 'aws';
}

/** A row whose permission fits its endpoint: a merchant's endpoint cannot stand under an operator's scope, nor be public. */
export function route(
  method: Method,
  path: string,
  ...[permission, endpoint]:
    | ['public', AnyPublicEndpoint]
    | [MerchantScope, AnyMerchantEndpoint]
    | [OperatorScope, AnyOperatorEndpoint]
): Route {
  return { method, path, permission, endpoint, shape: endpoint.body === 'bytes' ? 'aws' : 'json' };
}
