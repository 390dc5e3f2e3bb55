-- For how many days something of a run is kept after its end: `{"runs"?, "events"?, "checkpoints"?}`, else for ever.
ALTER TABLE run
    ADD COLUMN retention jsonb,
    ADD COLUMN forget_at timestamptz,
    ADD COLUMN forget_events_at timestamptz,
    ADD COLUMN forget_state_at timestamptz,
    ADD COLUMN events_forgotten boolean NOT NULL DEFAULT false;

CREATE INDEX run_to_forget ON run (forget_at) WHERE forget_at IS NOT NULL;
CREATE INDEX run_events_to_forget ON run (forget_events_at) WHERE forget_events_at IS NOT NULL;
CREATE INDEX run_state_to_forget ON run (forget_state_at) WHERE forget_state_at IS NOT NULL;

-- Only the end of a run starts the time, so nothing of one that is open is ever due.
CREATE FUNCTION run_is_ending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.forget_at := now() + (NEW.retention->>'runs')::float8 * interval '1 day';
    NEW.forget_events_at := now() + (NEW.retention->>'events')::float8 * interval '1 day';
    NEW.forget_state_at := least(now() + (NEW.retention->>'checkpoints')::float8 * interval '1 day', NEW.forget_at);
    RETURN NEW;
END
$$;

CREATE TRIGGER run_is_ending BEFORE UPDATE OF status ON run
    FOR EACH ROW WHEN (NEW.retention IS NOT NULL AND NEW.status IN ('succeeded', 'failed', 'cancelled')
                       AND OLD.status NOT IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION run_is_ending();
