import type { Check, Finding } from '../bedrock/verdicts.ts';
import type { PermissionReport } from './permission-ask.ts';

/** What tells who somebody is in an account. The account's number is no secret: every answer has it (x-bedrock-credential-account). */
const OF_AN_ACCOUNT = /arn:/;
const FIX = 'Ask the operator, whose account it is, or name a credential of your own.';

/**
 * The report of a test with the service's own account, for a merchant: what works and what does not, and the account's number, but not who calls
 * there. A policy would be the operator's to change.
 */
export function withoutTheServicesAccount(report: PermissionReport): PermissionReport {
  return {
    ...report,
    principal: undefined,
    policy: undefined,
    notInPolicy: [],
    checks: report.checks.map(redactedCheck),
    cells: report.cells.map(({ checks, profiles, fix, ...cell }) => ({
      ...redacted(cell),
      ...(profiles !== undefined && { profiles: profiles.filter((name) => !OF_AN_ACCOUNT.test(name)) }),
      ...(fix !== undefined && { fix: OF_AN_ACCOUNT.test(fix) ? FIX : fix }),
      checks: checks.map(redactedCheck),
    })),
  };
}

function redactedCheck<T extends Check>(check: T): T {
  return redacted(check);
}

/** A member for each that may hold AWS's words. */
function redacted<T extends Pick<Finding, 'why' | 'denied'>>(told: T): T {
  return {
    ...told,
    why: OF_AN_ACCOUNT.test(told.why)
      ? "AWS's answer is about the service's own account and is not told."
      : told.why,
    ...(told.denied !== undefined && { denied: { action: told.denied.action } }),
  };
}
