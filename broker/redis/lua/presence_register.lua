-- A new incarnation of a node. The first one opens the shard.
--
-- KEYS   1 meta, 2 nodes
-- ARGV   1 incarnation, never used before, 2 lease_ms
-- Reply  1

if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], 't', now, 's', 0, 'w', now + ARGV[2]) end
return redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
