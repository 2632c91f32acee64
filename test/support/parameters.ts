import { openApiDocument } from '../../src/http/openapi.ts';
import type { Route } from '../../src/http/route.ts';

/** One thing that a request of a route can say. */
export interface Parameter {
  route: Route;
  /** `path cid`, `query cursor`, `body credentialId`, `header idempotency-key` */
  name: string;
}

interface Operation {
  parameters?: { name: string; in: string }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}
interface Schema {
  properties?: Record<string, unknown>;
  oneOf?: Schema[];
  anyOf?: Schema[];
}

/** As the OpenAPI document has them, which is made from the table; and the headers, from the code that reads them. */
export function parametersOf(route: Route): Parameter[] {
  const { paths } = openApiDocument([route]) as { paths: Record<string, Record<string, Operation>> };
  const operation = Object.values(Object.values(paths)[0] ?? {})[0] ?? {};
  const body = operation.requestBody?.content['application/json']?.schema ?? {};
  const names = [
    ...(operation.parameters ?? []).map(
      (one) => `${one.in} ${one.in === 'header' ? one.name.toLowerCase() : one.name}`,
    ),
    ...memberNames(body).map((name) => `body ${name}`),
    ...(route.permission === 'invoke'
      ? ['x-bedrock-credential-id', 'x-bedrock-session', 'x-bedrock-end-user'].map((name) => `header ${name}`)
      : []),
  ];
  return [...new Set(names)].map((name) => ({ route, name }));
}

function memberNames({ properties = {}, oneOf = [], anyOf = [] }: Schema): string[] {
  return [...Object.keys(properties), ...[...oneOf, ...anyOf].flatMap(memberNames)];
}
