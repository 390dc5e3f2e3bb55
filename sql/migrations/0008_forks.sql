-- Where a run took over from: `{"run", "checkpoint"?, "step"?}`.
ALTER TABLE run ADD COLUMN forked_from json;

-- The state that it started with, as LangGraph's serializer writes it.
CREATE TABLE run_seed (
    run_id uuid  PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    org_id uuid  NOT NULL,
    type   text  NOT NULL,
    state  bytea NOT NULL
);
