-- What an engine needs to take a machine over from another that has died, JSON. Machines of before ended with their engine.
ALTER TABLE machines ADD COLUMN carried TEXT NOT NULL DEFAULT '{}';
