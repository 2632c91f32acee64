import { readFileSync } from 'node:fs';
import type { Config } from '../config/settings.ts';
import type { ServiceError } from '../domain/errors.ts';
import { errorFields } from '../observability/logger.ts';
import type { Logger } from '../observability/logger.ts';

/** The server's options from the configuration. @throws Error when a file of TLS cannot be read. */
export function serverOptions(config: Config, logger: Logger) {
  const { tlsCertFile, tlsKeyFile } = config;
  return {
    ...(tlsCertFile !== undefined &&
      tlsKeyFile !== undefined && {
        tls: { cert: readFileSync(tlsCertFile), key: readFileSync(tlsKeyFile) },
      }),
    limits: {
      headersTimeoutMs: 15_000,
      requestTimeoutMs: config.bodyTimeoutMs,
      // More than the idle timeout of common load balancers (60 s), so that they never meet a connection we are closing.
      keepAliveTimeoutMs: 75_000,
      stallTimeoutMs: config.idleTimeoutMs,
      headerBytesMax: 32_768,
      connectionsMax: config.connectionsMax,
      maxConcurrentStreams: 250,
    },
    onRefused: ({ requestId, status, error }: { requestId: string; status: number; error: ServiceError }) => {
      logger.info('request refused', { requestId, status, code: error.code });
    },
    onSocketError: (error: Error) => {
      logger.info('connection broken', errorFields(error));
    },
  };
}
