import type { Service } from '../../src/service.ts';

type Work = 'reconcile' | 'sweepLeftovers' | 'remindOfRotation' | 'checkpoint' | 'rotate';

/**
 * Takes work that a service does every so often out of its hands, for tests that say when it is done, and that count what was done.
 * @returns does it once
 */
export function takeOver(service: Service, work: Work): () => Promise<void> {
  const once = service[work].bind(service);
  service[work] = () => Promise.resolve();
  return once;
}
