-- Counts of one incarnation: absolute, sequenced, fenced. Totals move by the difference to what it said before.
--
-- KEYS   1 meta, 2 nodes, 3 grace, 4 n of the incarnation, 5.. scopes
-- ARGV   1 epoch, 2 incarnation, 3 sequence number, 4 the last one known to be applied, 5 grace_ms,
--        6 epoch for scopes that do not exist yet, then per scope: room, channel,
--        then per count: number of the scope (1..), user, connections
-- Reply  [status, ms until the first grace period ends or -1]; but for OK nothing was changed

if redis.call('HGET', KEYS[1], 'e') ~= ARGV[1] then return { 'EPOCH', -1 } end
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then return { 'FENCED', -1 } end
local last = tonumber(redis.call('HGET', KEYS[4], '#') or 0)
if last < tonumber(ARGV[4]) then return { 'ROLLBACK', -1 } end
if last >= tonumber(ARGV[3]) then return { 'STALE', -1 } end

redis.call('HSET', KEYS[4], '#', ARGV[3])
local scopes, arg = scopes_of(5, 7)
for i = arg, #ARGV, 3 do
  local scope, user, count = scopes[tonumber(ARGV[i])], ARGV[i + 1], tonumber(ARGV[i + 2])
  local entity = scope.room .. ' ' .. user
  local difference = count - (redis.call('HGET', KEYS[4], entity) or 0)
  if difference ~= 0 then
    if count == 0 then redis.call('HDEL', KEYS[4], entity) else redis.call('HSET', KEYS[4], entity, count) end
    move(scope, user, difference, KEYS[3], tonumber(ARGV[5]), ARGV[6])
  end
end
return { 'OK', due(KEYS[3]) }
