import base from './jest.config.js';

/** The opt-in suite against real AWS: `npm run test:live`. Never part of `npm test`. */
export default {
  ...base,
  testMatch: ['<rootDir>/test/live/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
  testTimeout: 120_000,
};
