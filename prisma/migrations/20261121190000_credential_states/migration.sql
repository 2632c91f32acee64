-- A credential is usable in one state only: 'active'. 'pending' waits for its proof, 'unsafe' failed it, 'frozen' was stopped by someone
-- and can be thawed, 'deleted' is for good. Admission (ledger_hold) asks for 'active', so that every other state stops calls at once.
ALTER TABLE credentials DROP CONSTRAINT credentials_state_check;
ALTER TABLE credentials ADD CONSTRAINT credentials_state_check CHECK (state IN ('pending', 'active', 'unsafe', 'frozen', 'deleted'));
