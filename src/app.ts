import express from 'express';
import type { Express } from 'express';
import helmet from 'helmet';
import { mount } from './http/mount.ts';
import type { Authenticate } from './http/mount.ts';
import { ROUTES } from './http/routes.ts';
import type { Services } from './http/services.ts';
import { answerError } from './http/steps/answer-error.ts';
import { begin } from './http/steps/begin.ts';

/** The order of the house: begin -> (each route: authenticate -> load merchant -> authorize -> validate -> handler) -> error. */
export function createApp(
  services: Services,
  authenticate: Authenticate,
  { trustedProxies }: { trustedProxies: readonly string[] },
): Express {
  const app = express();
  app.set('case sensitive routing', true).set('strict routing', true).set('query parser', false);
  app.set('etag', false).disable('x-powered-by');
  app.set('trust proxy', trustedProxies.length === 0 ? false : [...trustedProxies]);
  app.use(begin(services.logger));
  app.use(
    helmet({
      contentSecurityPolicy: {
        useDefaults: false,
        directives: { 'default-src': ["'none'"], 'frame-ancestors': ["'none'"] },
      },
    }),
  );
  mount(app, ROUTES, services, authenticate);
  app.use(answerError(services));
  return app;
}
