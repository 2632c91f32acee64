import { BedrockProbes } from '../bedrock/probes-aws.ts';
import { AuditStore } from '../audit/audit-store.ts';
import type { BedrockModels } from '../bedrock/models-aws.ts';
import type { BedrockRuntime } from '../bedrock/runtime-aws.ts';
import type { Config } from '../config/settings.ts';
import { EnvironmentTest } from '../gateway/environment-test.ts';
import type { EnvironmentTestParts } from '../gateway/environment-test.ts';
import { Admission } from '../gateway/admission.ts';
import type { AdmissionParts } from '../gateway/admission.ts';
import { Gateway } from '../gateway/gateway.ts';
import type { KeptAnswers } from '../gateway/kept-answers.ts';
import { PermissionCell } from '../gateway/permission-cell.ts';
import { PermissionTest } from '../gateway/permission-test.ts';
import type { PermissionTestParts } from '../gateway/permission-test.ts';
import { RuntimeProbes } from '../gateway/runtime-probes.ts';
import type { Base } from './base.ts';

/** Free questions are small and quick; many are asked at once. */
const LIMITS = { socketsMax: 64, connectMs: 3_000, firstByteMs: 10_000, totalMs: 15_000 };
/** Of one permission test, and of one step of an environment test. Milliseconds. */
const TEST_MS = 25_000;
const STEP_MS = 10_000;

type Parts = Omit<AdmissionParts, 'totalTimeoutMs'> &
  Pick<PermissionTestParts, 'identity'> &
  Pick<EnvironmentTestParts, 'vault'> & {
    answers: KeptAnswers;
    runtime: BedrockRuntime;
    models: BedrockModels;
  };

/** The way of paid calls, and what tells a merchant how far along that way it gets. */
export function buildCalls(config: Config, { database }: Pick<Base, 'database'>, parts: Parts) {
  const { endpointBedrock, enabledRegions } = config;
  const { answers, models, runtime } = parts;
  const admission = new Admission({ ...parts, totalTimeoutMs: config.totalTimeoutMs });
  const audit = new AuditStore(database);
  const gateway = new Gateway(admission, runtime, answers, config);
  const probes = new BedrockProbes({ ...LIMITS, endpoint: endpointBedrock });
  const cell = new PermissionCell({ probes, models, runtime: new RuntimeProbes({ runtime, gateway }) });
  const tested = { ...parts, audit, probes };
  const permissionTest = new PermissionTest({ ...tested, cell, totalMs: TEST_MS });
  const environmentTest = new EnvironmentTest({ ...tested, regions: enabledRegions, stepMs: STEP_MS });
  return { probes, calls: { audit, gateway, permissionTest, environmentTest } };
}
