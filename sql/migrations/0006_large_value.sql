-- Values too large to stand in every checkpoint: each once per run, under the hash of its JSON.
CREATE TABLE large_value (
    run_id uuid NOT NULL REFERENCES run ON DELETE CASCADE,
    hash text NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (run_id, hash)
);
