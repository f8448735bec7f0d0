-- Whether a user is visible.
--
-- KEYS   1 scope
-- ARGV   1 user
-- Reply  1 or 0

return redis.call('HEXISTS', KEYS[1], ARGV[1])
