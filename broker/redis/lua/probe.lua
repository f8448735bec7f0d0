-- The node's loop-back probe. It writes, because a demoted server still answers PUBLISH; it publishes first, because
-- a server that is out of memory refuses the write and is not deaf for that.
--
-- KEYS   1 the node's probe key (STRING)
-- ARGV   1 nonce, 2 the node's channel, 3 ttl_ms
-- Reply  the status of SET

redis.call('PUBLISH', ARGV[2], '\1' .. cmsgpack.pack({ 3, ARGV[1] }))
return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
