import type { BedrockModels } from '../bedrock/models-aws.ts';
import { BedrockProbes } from '../bedrock/probes-aws.ts';
import type { Config } from '../config/settings.ts';
import { EnvironmentTest } from '../gateway/environment-test.ts';
import type { EnvironmentTestParts } from '../gateway/environment-test.ts';
import { PermissionCell } from '../gateway/permission-cell.ts';
import { PermissionTest } from '../gateway/permission-test.ts';
import type { PermissionTestParts } from '../gateway/permission-test.ts';
import { RuntimeProbes } from '../gateway/runtime-probes.ts';
import type { Base } from './base.ts';
import { buildGateway } from './gateway.ts';
import type { PaidCallParts } from './gateway.ts';

/** Free questions are small and quick; many are asked at once. */
const LIMITS = { socketsMax: 64, connectMs: 3_000, firstByteMs: 10_000, totalMs: 15_000 };
/** Of one permission test, and of one step of an environment test. Milliseconds. */
const TEST_MS = 25_000;
const STEP_MS = 10_000;

type Parts = PaidCallParts &
  Pick<PermissionTestParts, 'identity'> &
  Pick<EnvironmentTestParts, 'audit' | 'roleSessions' | 'vault'> & { models: BedrockModels };

/** The way of paid calls, and what tells a merchant how far along that way it gets. */
export function buildCalls(config: Config, base: Base, parts: Parts) {
  const { endpointBedrock, enabledRegions, privateEndpoints: privateNames } = config;
  const { models, runtime } = parts;
  const { gateway, rights, watch } = buildGateway(config, base, parts);
  const probes = new BedrockProbes({ ...LIMITS, endpoint: endpointBedrock, privateNames });
  const cell = new PermissionCell({ probes, models, runtime: new RuntimeProbes({ runtime, gateway }) });
  const tested = { ...parts, probes };
  const permissionTest = new PermissionTest({ ...tested, cell, rights, totalMs: TEST_MS });
  const environmentTest = new EnvironmentTest({
    ...tested,
    regions: enabledRegions,
    stepMs: STEP_MS,
    clock: base.monotonic,
  });
  return { probes, watch, calls: { gateway, permissionTest, environmentTest, watch } };
}
