import { z } from 'zod';
import { ERRORS } from '../domain/error-catalogue.ts';
import type { Route } from './route.ts';

/** How a JSON body may name a credential, for routes that take one. Exactly one choice; none means the merchant's default. */
const CREDENTIAL_CHOICE = {
  awsAccessKeyId: { type: 'string', description: 'direct: an AWS access key id, with the two below' },
  awsSecretAccessKey: { type: 'string', writeOnly: true },
  awsSessionToken: { type: 'string', writeOnly: true, description: 'direct: for temporary keys (ASIA…)' },
  awsRegion: { type: 'string', description: 'direct: the region to call' },
  credentialId: { type: 'string', description: 'stored: a credential of the vault' },
  session: { type: 'string', writeOnly: true, description: 'session: what POST /initialize returned' },
  useServiceDefaults: {
    const: true,
    description: "service-default: the service's own account, where allowed",
  },
};

/** The table as an OpenAPI 3.1 document. docs/openapi.json is a snapshot of it, held equal by a test. */
export function openApiDocument(routes: readonly Route[]): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = route.path.replace(/[:*](\w+)/g, '{$1}');
    (paths[path] ??= {})[route.method.toLowerCase()] = operationOf(route);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'merchant-bedrock',
      version: '0.1.0',
      description: 'AWS Bedrock for many merchants, each with its own AWS account.',
    },
    paths,
    components: {
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'An API key (mbk_…), an operator key (mbo_…) or a JWT',
        },
      },
      schemas: { Problem: PROBLEM },
    },
  };
}

const PROBLEM = {
  type: 'object',
  description: 'RFC 9457. docs/errors.md explains every code.',
  required: ['type', 'title', 'status', 'detail', 'code', 'requestId'],
  properties: {
    type: { type: 'string', format: 'uri' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string' },
    code: { enum: Object.keys(ERRORS) },
    requestId: { type: 'string', format: 'uuid' },
    problems: { type: 'array', items: { type: 'string' } },
  },
};

const IDEMPOTENCY_KEY = {
  name: 'Idempotency-Key',
  in: 'header',
  description:
    'The same key and body give the one answer of the first call. docs/idempotency.md tells the whole.',
  schema: { type: 'string', pattern: '^[!-~]{1,255}$' },
};

function operationOf(route: Route): object {
  const { endpoint, permission, shape } = route;
  const { status, schema, description } = endpoint.reply;
  const content =
    schema === undefined ? {} : { content: { 'application/json': { schema: schemaOf(schema, 'output') } } };
  const errorContent =
    shape === 'aws'
      ? { 'application/json': { schema: { type: 'object', properties: { message: { type: 'string' } } } } }
      : { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } };
  const parameters = [
    ...pathParameters(route.path),
    ...queryParameters(endpoint.query as z.ZodType | undefined),
    ...(endpoint.paid === true ? [IDEMPOTENCY_KEY] : []),
  ];
  return {
    summary: endpoint.summary,
    operationId: operationId(route),
    ...(permission === 'public' ? {} : { security: [{ bearer: [] }], 'x-permission': permission }),
    ...(parameters.length > 0 && { parameters }),
    ...requestBody(route),
    responses: {
      [String(status)]: { description, ...content },
      default: {
        description: shape === 'aws' ? 'An error in AWS’s shape' : 'A problem document',
        content: errorContent,
      },
    },
  };
}

function requestBody({ endpoint }: Route): object {
  if (endpoint.body === undefined) return {};
  if (endpoint.body === 'bytes')
    return {
      requestBody: {
        required: true,
        content: { 'application/json': { schema: {} }, 'application/octet-stream': { schema: {} } },
      },
    };
  const schema = schemaOf(endpoint.body as z.ZodType, 'input');
  if (endpoint.namesCredential === true)
    schema['properties'] = { ...CREDENTIAL_CHOICE, ...(schema['properties'] as object) };
  return { requestBody: { required: true, content: { 'application/json': { schema } } } };
}

function queryParameters(query: z.ZodType | undefined): object[] {
  if (query === undefined) return [];
  const { properties = {} } = schemaOf(query, 'input') as { properties?: Record<string, object> };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: 'query', schema }));
}

function pathParameters(path: string): object[] {
  return [...path.matchAll(/[:*](\w+)/g)].map((match) => ({
    name: match[1],
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
}

function operationId({ method, path }: Route): string {
  const words = path
    .replace('/api/merchants/:id/bedrock', '')
    .split(/[^A-Za-z]+/)
    .filter((word) => word !== '');
  return method.toLowerCase() + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('');
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Record<string, unknown> {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}
