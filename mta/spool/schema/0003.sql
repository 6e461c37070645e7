-- Why a recipient is still here: the last outcome. NULL before there is one.
ALTER TABLE recipient ADD COLUMN last TEXT;   -- JSON, core/last
