-- The top of a room's log and the entries after an offset, in one atomic step. Opens the log if there is none.
--
-- KEYS   1 meta (HASH), 2 log (STREAM), as in append.lua
-- ARGV   1 epoch for a log that does not exist yet, 2 offset or '' (no entries), 3 limit, 4 ttl_ms of an empty log
-- Reply  [epoch, offset, tag, [offset, payload, tag before, tag, ...]]

local top = redis.call('HMGET', KEYS[1], 'e', 'o', 'g')
local epoch, offset, tag = top[1], top[2], top[3]
if not epoch then
  epoch, offset, tag = ARGV[1], '0', '0'
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0, 'g', '0')
  redis.call('DEL', KEYS[2])
end
if offset == '0' then redis.pcall('PEXPIRE', KEYS[1], ARGV[4]) end

local entries = {}
if ARGV[2] ~= '' and ARGV[3] ~= '0' then
  -- '(' is an exclusive start
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2] .. '-0', '+', 'COUNT', ARGV[3])) do
    local fields = entry[2]
    entries[#entries + 1] = string.match(entry[1], '^%d+')
    entries[#entries + 1] = fields[2]
    entries[#entries + 1] = fields[4]
    entries[#entries + 1] = fields[6]
  end
end
return { epoch, offset, tag, entries }
