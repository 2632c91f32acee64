/** The services that the stand-in speaks for, by the name of their AWS SDK client. */
export const SERVICES = [
  'bedrock-runtime',
  'bedrock',
  'kms',
  'secretsmanager',
  'sts',
  'iam',
  'logs',
  's3',
] as const;
export type Service = (typeof SERVICES)[number];

/** Where an error type lives: `bedrock` for the service's own errors, `coral` for those of AWS's front door. */
type ErrorNamespace = 'bedrock' | 'coral';

export interface AwsErrorOptions {
  /** HTTP status on REST and Query services; KMS and Secrets Manager answer 400 to every caller's mistake. */
  status?: number;
  namespace?: ErrorNamespace;
  headers?: Readonly<Record<string, string>>;
  /** Replaces the whole JSON body, for the few answers that have a shape of their own (bearer failures). */
  body?: object;
}

/** An answer that AWS would give instead of a result. `type` is the code that SDKs name their exception class after. */
export class AwsError extends Error {
  override readonly name = 'AwsError';
  readonly type: string;
  readonly options: AwsErrorOptions;

  constructor(type: string, message: string, options: AwsErrorOptions = {}) {
    super(message);
    this.type = type;
    this.options = options;
  }
}

/** A request that is wrong in itself: 400, by the name the REST services use. */
export function validationError(message: string): AwsError {
  return new AwsError('ValidationException', message, { status: 400 });
}
