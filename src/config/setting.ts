import { z } from 'zod';
import { BEDROCK_REGIONS } from '../domain/region.ts';

/** One thing that can be set. Everything arrives as text: from the environment, or from the config file turned into text. */
export interface Setting<T> {
  /** Its name in the environment; the config file uses the property name in SETTINGS. */
  env: string;
  /** For .env.example: what it is, its unit, when to change it. */
  about: string;
  read: z.ZodType<T, string>;
  /** Absent: it must be set, unless `read` takes undefined. */
  fallback?: string;
}

export const text = z.string().trim().min(1, 'must not be empty');
export const flag = z.enum(['true', 'false'], 'must be true or false').transform((value) => value === 'true');
export const list = z.string().transform((value) =>
  value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== ''),
);
export const url = z
  .string()
  .refine(
    (value) => URL.canParse(value) && /^https?:$/.test(new URL(value).protocol),
    'must be an http(s) URL',
  );
/** An address, or a network as address/bits. */
export const network = z.union(
  [z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()],
  'must be IP addresses or networks such as 10.0.0.0/8',
);
export const region = z.enum(
  BEDROCK_REGIONS,
  'must be a region where Bedrock has an endpoint, such as us-east-1',
);

export const principalArn = z
  .string()
  .regex(
    /^arn:aws:iam::\d{12}:(role|user)\/[\x21-\x7e]{1,576}$/,
    'must be the ARN of a role or user, not of a session',
  );

export function integer(min: number, max: number): z.ZodType<number, string> {
  const message = `must be a whole number from ${String(min)} to ${String(max)}`;
  return z
    .string()
    .regex(/^\d{1,15}$/, message)
    .transform(Number)
    .refine((value) => value >= min && value <= max, message);
}

export function setting<T>(
  env: string,
  about: string,
  read: z.ZodType<T, string>,
  fallback?: string,
): Setting<T> {
  return fallback === undefined ? { env, about, read } : { env, about, read, fallback };
}

/** A setting that may be absent: its value is then undefined. */
export function optional<T>(
  env: string,
  about: string,
  read: z.ZodType<T, string>,
): Setting<T> & { optional: true } {
  return { env, about, read, optional: true };
}

/** The value of a setting; an optional one may be undefined. */
export type Value<S> = S extends { optional: true; read: z.ZodType<infer T> }
  ? T | undefined
  : S extends { read: z.ZodType<infer T> }
    ? T
    : never;

export type AnySetting = Setting<unknown> & { optional?: true };
