import type { Config } from '../config/settings.ts';
import { Admission } from '../gateway/admission.ts';
import type { AdmissionParts } from '../gateway/admission.ts';
import { Gateway } from '../gateway/gateway.ts';
import type { GatewayParts } from '../gateway/gateway.ts';
import { Watch } from '../gateway/watch.ts';
import { RightsStore } from '../ledger/rights-store.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

type Parts = Omit<AdmissionParts, 'rights' | 'totalTimeoutMs'> & Omit<GatewayParts, 'admission' | 'watch'>;

/** The path of paid calls: what lets them in, what sends them, what ends them early. */
export function buildGateway(config: Config, { clock, database, logger }: Base, parts: Parts) {
  const rights = new RightsStore(database);
  const watch = new Watch({
    rights,
    clock,
    onBlind: (error) => {
      logger.warn('running streams could not be asked after: tried again', errorFields(error));
    },
  });
  const admission = new Admission({ ...config, ...parts, rights });
  return { watch, gateway: new Gateway({ ...parts, admission, watch }, config) };
}
