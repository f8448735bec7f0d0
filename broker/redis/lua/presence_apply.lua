-- Counts of one incarnation: absolute, sequenced, fenced. Totals move by the difference to what it said before.
--
-- KEYS   1 nodes, 2 grace, 3 n of the incarnation, 4.. scopes
-- ARGV   1 incarnation, 2 sequence number, 3 the last one known to be applied, 4 grace_ms,
--        5 epoch for scopes that do not exist yet, then per scope: room, channel,
--        then per count: number of the scope (1..), user, connections
-- Reply  [status, ms until the first grace period ends or -1]; but for OK nothing was changed

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return { 'FENCED', -1 } end
local last = tonumber(redis.call('HGET', KEYS[3], '#') or 0)
if last < tonumber(ARGV[3]) then return { 'ROLLBACK', -1 } end
if last >= tonumber(ARGV[2]) then return { 'STALE', -1 } end

redis.call('HSET', KEYS[3], '#', ARGV[2])
local scopes, arg = scopes_of(4, 6)
for i = arg, #ARGV, 3 do
  local scope, user, count = scopes[tonumber(ARGV[i])], ARGV[i + 1], tonumber(ARGV[i + 2])
  local entity = scope.room .. ' ' .. user
  local difference = count - (redis.call('HGET', KEYS[3], entity) or 0)
  if difference ~= 0 then
    if count == 0 then redis.call('HDEL', KEYS[3], entity) else redis.call('HSET', KEYS[3], entity, count) end
    move(scope, user, difference, KEYS[2], tonumber(ARGV[4]), ARGV[5])
  end
end
return { 'OK', due(KEYS[2]) }
