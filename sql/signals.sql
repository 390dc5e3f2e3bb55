-- notify --
SELECT pg_notify('flowserver', payload) FROM unnest(%(payloads)s::text[]) AS payload;
