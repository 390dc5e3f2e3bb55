-- LangGraph's store keeps long-term memories; its own migration of this table would fix one dimension for all
-- embedding models. It compares vectors one by one, so that no index is needed.
CREATE TABLE IF NOT EXISTS store_vectors (
    prefix     text        NOT NULL,
    key        text        NOT NULL,
    field_name text        NOT NULL,
    embedding  vector,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    PRIMARY KEY (prefix, key, field_name),
    FOREIGN KEY (prefix, key) REFERENCES store (prefix, key) ON DELETE CASCADE
);
