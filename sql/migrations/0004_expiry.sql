-- Settled by its deadline, without an answer.
ALTER TABLE question
    DROP CONSTRAINT question_status_check,
    ADD CONSTRAINT question_status_check CHECK (status IN ('open', 'answered', 'expired', 'closed'));

CREATE INDEX question_by_deadline ON question (deadline) WHERE status = 'open' AND deadline IS NOT NULL;
