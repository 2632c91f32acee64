/** Whether this process should get traffic. */
export interface Health {
  /** Set when a shutdown has begun: readiness fails while running calls finish. */
  shuttingDown: boolean;
  /** True when the database answers with the schema this code was built for. */
  databaseReady(): Promise<boolean>;
  /** False while the settlements of new calls could find no place. */
  spoolReady(): boolean;
}
