import type { Express, NextFunction, Request, RequestHandler, Response } from 'express';
import { assertUnexpired, authorize } from '../auth/permissions.ts';
import { choiceFromBody, choiceFromHeaders } from '../domain/credential-choice.ts';
import type { CredentialChoice } from '../domain/credential-choice.ts';
import { ServiceError } from '../domain/errors.ts';
import type { Principal } from '../domain/principal.ts';
import type { BodyMemory } from './body-budget.ts';
import type { AnyEndpoint, Reply, Route } from './route.ts';
import type { Services } from './services.ts';
import { carriedBy, goneSignal } from './steps/begin.ts';
import { loadMerchant, merchantIdOf } from './steps/load-merchant.ts';
import { readBody } from './steps/read-body.ts';
import { readJsonBody, readQuery, validate } from './steps/validate.ts';

/** Puts the table into Express: authenticate -> load merchant -> authorize -> validate -> handler, for every row alike. */
export function mount(
  app: Express,
  routes: readonly Route[],
  services: Services,
  authenticate: Authenticate,
): void {
  for (const route of routes) {
    const serve = (req: Request, res: Response, next: NextFunction): void => {
      carriedBy(res).event['route'] = `${route.method} ${route.path}`;
      walk(route, services, { req, res }).then(undefined, next);
    };
    const steps =
      route.permission === 'public' ? [serve] : [authenticate({ remembered: isPaid(route) }), serve];
    app[lowerCase(route.method)](route.path, ...steps);
  }
  for (const path of new Set(routes.map((route) => route.path))) {
    const allowed = routes.filter((route) => route.path === path).map((route) => route.method);
    app.all(path, (_req, res) => {
      res.setHeader('allow', allowed.join(', '));
      throw new ServiceError('route.method_not_allowed', `This path takes ${allowed.join(', ')}.`);
    });
  }
  app.use(() => {
    throw new ServiceError('route.not_found', 'There is no such route. GET /openapi.json lists them all.');
  });
}

/** The step that says who is calling; `remembered`: as known from a moment ago, where admission looks again. */
export type Authenticate = (how: { remembered: boolean }) => RequestHandler;

function isPaid({ endpoint }: Route): boolean {
  return endpoint.paid === true;
}

type Params = Readonly<Record<string, string>>;

async function walk(
  route: Route,
  services: Services,
  { req, res }: { req: Request; res: Response },
): Promise<void> {
  const { endpoint } = route;
  const { requestId, event, principal } = carriedBy(res);
  const params = toParams(req.params);
  const context = { req, res, services, requestId, event, params };
  const admitted = await admit(route, services, { req, params, principal, requestId });
  if (principal !== undefined)
    Object.assign(event, {
      subject: principal.subject,
      ...(principal.kind === 'merchant' && { merchantId: principal.merchantId }),
    });

  const query: unknown =
    endpoint.query === undefined ? undefined : validate(endpoint.query, readQuery(req), 'query');
  if (endpoint.body === 'bytes') {
    const { limits } = services;
    using lease = await readBody(req, {
      bytesMax: limits.wireBodyBytesMax,
      budget: memoryOf(principal, services),
      timeoutMs: limits.bodyTimeoutMs,
    });
    assertUnexpired(principal, services.clock);
    await handle(endpoint, {
      ...context,
      ...admitted,
      query,
      body: lease.bytes,
      choice: choiceFromHeaders(req.headers),
      callerGone: goneSignal(res),
    });
    return;
  }
  const memory = { budget: memoryOf(principal, services), limits: services.limits };
  const { body, choice } = await readParts(endpoint, req, memory);
  assertUnexpired(principal, services.clock);
  const reply = await handle(endpoint, {
    ...context,
    ...admitted,
    query,
    body,
    choice,
    callerGone: goneSignal(res),
  });
  if (reply !== undefined) send(res, reply);
}

/** Who may come in: the token's merchant against the path's, then the scope, then that the merchant is there and active. */
async function admit(
  route: Route,
  services: Services,
  {
    req,
    params,
    principal,
    requestId,
  }: { req: Request; params: Params; principal: Principal | undefined; requestId: string },
): Promise<object> {
  if (route.permission === 'public') return {};
  if (principal === undefined)
    throw new ServiceError('auth.missing_token', 'Send Authorization: Bearer <token>.');
  const actor = { subject: principal.subject, requestId };
  if (route.endpoint.kind === 'operator') {
    authorize(principal, { permission: route.permission });
    return { principal, actor };
  }
  const merchantId = merchantIdOf(params['id'] ?? '');
  authorize(principal, { permission: route.permission, merchantId });
  return {
    principal,
    actor,
    merchant: await loadMerchant(services.merchants, merchantId, { remembered: isPaid(route) }),
    ...requestedRegion(req),
  };
}

/** Each merchant has its part of the memory for bodies. */
function memoryOf(principal: Principal | undefined, { bodyBudget }: Services): BodyMemory {
  if (principal === undefined) return bodyBudget;
  return bodyBudget.shareOf(principal.kind === 'merchant' ? principal.merchantId : principal.subject);
}

async function readParts(
  endpoint: AnyEndpoint,
  req: Request,
  memory: Parameters<typeof readJsonBody>[1],
): Promise<{ body: unknown; choice: CredentialChoice }> {
  const fromHeaders = choiceFromHeaders(req.headers);
  if (endpoint.body === undefined || endpoint.body === 'bytes')
    return { body: undefined, choice: fromHeaders };
  const json = await readJsonBody(req, memory);
  if (endpoint.namesCredential !== true)
    return { body: validate(endpoint.body, json, 'body'), choice: fromHeaders };
  const { choice, rest } = choiceFromBody(json);
  return { body: validate(endpoint.body, rest, 'body'), choice: oneChoice(choice, fromHeaders) };
}

/** The union of endpoints is closed by `route()`: the context that `admit` made is the one its kind expects. */
function handle(endpoint: AnyEndpoint, context: object): Promise<Reply | undefined> {
  return (endpoint.handle as (context: object) => Promise<Reply | undefined>)(context);
}

function send(res: Response, { status, body, headers }: Reply): void {
  res.status(status);
  if (headers !== undefined) res.set({ ...headers });
  if (body === undefined) res.end();
  else res.type('application/json').send(Buffer.isBuffer(body) ? body : JSON.stringify(body));
}

function toParams(params: Readonly<Record<string, string | string[]>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(params).map(([name, value]) => [name, Array.isArray(value) ? value.join('/') : value]),
  );
}

function lowerCase<M extends string>(method: M): Lowercase<M> {
  return method.toLowerCase() as Lowercase<M>;
}

/** A body and headers that each name a credential are two choices at once. */
function oneChoice(fromBody: CredentialChoice, fromHeaders: CredentialChoice): CredentialChoice {
  if (fromBody.kind === 'merchant-default') return fromHeaders;
  if (fromHeaders.kind === 'merchant-default') return fromBody;
  throw new ServiceError(
    'credential.choice_invalid',
    'The body and the headers each name a credential. Name exactly one.',
  );
}

/** `x-bedrock-region` once or not at all; Node joins repeated ones, which then is no region. */
function requestedRegion(req: Request): { requestedRegion?: string } {
  const region = req.headers['x-bedrock-region'];
  return typeof region === 'string' ? { requestedRegion: region } : {};
}
