import { publicEndpoint } from '../../route.ts';

let document: object | undefined;

/** The table as OpenAPI. Loaded on first use: the table itself holds this route. */
export const openapi = publicEndpoint({
  summary: 'This API as an OpenAPI 3.1 document',
  reply: { status: 200, description: 'OpenAPI 3.1' },
  handle: async () => {
    const [{ openApiDocument }, { ROUTES }] = await Promise.all([
      import('../../openapi.ts'),
      import('../../routes.ts'),
    ]);
    document ??= openApiDocument(ROUTES);
    return { status: 200, body: document };
  },
});
