-- Give up a page of a dead incarnation's share and name the next page. By any node, any number of times: a count leaves
-- the share in the step in which it leaves the total.
--
-- KEYS   1 dead, 2 grace, 3 n of the dead incarnation, 4.. scopes
-- ARGV   1 incarnation, 2 grace_ms, 3 page, then per scope: room, channel,
--        then per entity as named before: number of the scope (1..), user
-- Reply  [ms until the first grace period ends or -1, the next '<room> <user>'; none when all is done]

if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return { -1, {} } end
local scopes, arg = scopes_of(4, 4)
for i = arg, #ARGV, 2 do
  local scope, user = scopes[tonumber(ARGV[i])], ARGV[i + 1]
  local entity = scope.room .. ' ' .. user
  local count = redis.call('HGET', KEYS[3], entity)
  if count then
    redis.call('HDEL', KEYS[3], entity)
    move(scope, user, -count, KEYS[2], tonumber(ARGV[2]))
  end
end
local rest = {}
for _, field in ipairs(redis.call('HRANDFIELD', KEYS[3], ARGV[3] + 1)) do -- one more: '#' may be among them
  if field ~= '#' then rest[#rest + 1] = field end
end
if #rest == 0 and redis.call('HLEN', KEYS[3]) <= 1 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[3])
end
return { due(KEYS[2]), rest }
