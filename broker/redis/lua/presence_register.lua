-- A new incarnation of a node. The first one opens the shard.
--
-- KEYS   1 meta, 2 nodes
-- ARGV   1 incarnation, never used before, 2 epoch for a shard that does not exist yet, 3 lease_ms
-- Reply  epoch of the shard

local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[2]
  redis.call('HSET', KEYS[1], 'e', epoch, 't', now, 's', 0, 'w', now + ARGV[3])
end
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return epoch
