-- The tops of many rooms. A room asked for is in use: an empty one is not forgotten meanwhile, nor one that has been
-- silent for a month. Where writes are refused only that does not happen.
--
-- KEYS   meta (HASH) of each room, as in append.lua
-- ARGV   1 ttl_ms of an empty log, 2 ttl_ms of one that is not
-- Reply  per room [epoch, offset, tag], or nothing ([]) if it has no log

local tops = {}
for i, meta in ipairs(KEYS) do
  local top = redis.call('HMGET', meta, 'e', 'o', 'g')
  if not top[1] then
    tops[i] = {}
  else
    tops[i] = top
    if top[2] == '0' then redis.pcall('PEXPIRE', meta, ARGV[1]) else redis.pcall('PEXPIRE', meta, ARGV[2], 'GT') end
  end
end
return tops
