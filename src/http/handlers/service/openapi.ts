import { publicEndpoint } from '../../route.ts';

export const openapi = publicEndpoint({
  summary: 'This API as an OpenAPI 3.1 document',
  reply: { status: 200, description: 'OpenAPI 3.1' },
  handle: ({ services }) => Promise.resolve({ status: 200, body: services.openApi }),
});
