import type { Config } from '../config/settings.ts';
import { Admission } from '../gateway/admission.ts';
import type { AdmissionParts } from '../gateway/admission.ts';
import { FairQueue } from '../gateway/fair-queue.ts';
import { Gateway } from '../gateway/gateway.ts';
import type { GatewayParts } from '../gateway/gateway.ts';
import { Watch } from '../gateway/watch.ts';
import { RightsStore } from '../ledger/rights-store.ts';
import { errorFields } from '../observability/logger.ts';
import type { Base } from './base.ts';

export type PaidCallParts = Omit<AdmissionParts, 'rights' | 'totalTimeoutMs'> &
  Omit<GatewayParts, 'admission' | 'queue' | 'watch'>;

/** The path of paid calls: what lets them in, what sends them, what ends them early. */
export function buildGateway(config: Config, { clock, database, logger }: Base, parts: PaidCallParts) {
  const rights = new RightsStore(database);
  const watch = new Watch({
    rights,
    clock,
    onBlind: (error) => {
      logger.warn('running streams could not be asked after: tried again', errorFields(error));
    },
  });
  const admission = new Admission({ ...config, ...parts, rights });
  const queue = buildFairQueue(config);
  return { rights, watch, gateway: new Gateway({ ...parts, admission, queue, watch }, config) };
}

function buildFairQueue(config: Config): FairQueue {
  const { callsInFlightMax: inFlightMax, callsInFlightSharePercent: share } = config;
  return new FairQueue({
    inFlightMax,
    inFlightPerMerchantMax: Math.max(1, Math.floor((inFlightMax * share) / 100)),
    waitingPerMerchantMax: config.callsWaitingMax,
    waitMs: config.callsWaitMs,
  });
}
