import { errorFields, newLogger } from './logger.ts';

/** Told apart from a start that failed (1) and from settings that are wrong (2). */
const CRASHED = 70;
const EVENT = 'ended: nobody caught an error';

/**
 * Ends the process when an error was caught by nobody. Node would print its message and stack as they are, past the scanner of the log, and
 * either may hold what a caller sent: it is logged as every error, by class, code and place, whatever the level. At once, because nothing is
 * known of the state that is left; the ledger and the spool are made for a process that is gone from one moment to the next.
 */
export function endOnCrash(): void {
  // With a buffer of its own, which is written out as the process exits, as the service's is.
  const logger = newLogger('error');
  const end = (error: unknown): void => {
    try {
      logger.error(EVENT, errorFields(error));
    } catch {
      // An error that throws when it is looked at.
      logger.error(EVENT);
    } finally {
      process.exit(CRASHED);
    }
  };
  process.on('uncaughtException', end).on('unhandledRejection', end);
}
