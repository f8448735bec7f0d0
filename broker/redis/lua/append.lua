-- The publishes of one tick of one node, in the order of their calls. Messages do not depend on each other: what
-- fails fails alone.
--
-- KEYS   per append: meta (HASH e epoch, o offset, g tag, b bytes kept), log (STREAM <offset>-0: d payload, p tag
--        before, g tag), marks (HASH e epoch, <user> "<delivered> <read> <Unix time of the last advance>") and, if it
--        has a retry key, dedup (STRING cmsgpack [epoch, offset, tag]). Per advance: meta, marks. A publish has none.
-- ARGV   1 epoch for logs that do not exist yet, 2 ttl_ms of marks, 3 how many of a room are kept, then per message
--        'p' channel envelope
--        'm' channel envelope (or '') user status offset
--        'a' channel payload tag author (or '') max_entries max_bytes ttl_ms meta_ttl_ms dedup_ttl_ms (0: no retry key)
-- Reply  per message: 0 for a publish; 1 for an advance that moved the mark, -1 for one that did not; [epoch, offset, tag] for an append, of the first one if it is a repetition;
--        or an error, and then nothing of that message was done.
--
-- The first write to a room is the one that Redis refuses when it is out of memory, read-only or not allowed to write
-- (a script that has written is not interrupted any more); so a refused append leaves nothing behind.

local TRIM_SLACK = 128
local PAGE = 16

local function id(offset)
  return string.format('%.0f-0', offset)
end

-- Remove the oldest entries: `count` of them, or (count nil) until `bytes` is at most max_bytes. Returns bytes kept.
local function trim(log, count, bytes, max_bytes)
  while (count and count > 0) or (not count and bytes > max_bytes) do
    local page = redis.call('XRANGE', log, '-', '+', 'COUNT', math.min(count or PAGE, TRIM_SLACK))
    if #page == 0 then return 0 end
    local removed = 0
    for _, entry in ipairs(page) do
      if not count and bytes <= max_bytes then break end
      bytes = bytes - #entry[2][2]
      removed = removed + 1
    end
    local last = tonumber(string.match(page[removed][1], '^%d+'))
    redis.call('XTRIM', log, 'MINID', id(last + 1))
    if count then count = count - removed end
  end
  return bytes
end

-- Too many marks: those who have not moved for longest go, a tenth at a time.
local function trim_marks(marks, max_marks)
  local all, users = redis.call('HGETALL', marks), {}
  for i = 1, #all, 2 do
    if all[i] ~= 'e' then users[#users + 1] = { all[i], tonumber(string.match(all[i + 1], '%d+$')) } end
  end
  table.sort(users, function(one, other) return one[2] < other[2] end)
  for i = 1, #users - math.floor(max_marks * 0.9) do redis.call('HDEL', marks, users[i][1]) end
end

-- Whether it moved: the maximum wins, within the epoch of the log; `read` implies `delivered`.
local function move_mark(marks, epoch, user, status, offset)
  local known = redis.call('HMGET', marks, 'e', user)
  local delivered, read = 0, 0
  if known[1] == epoch and known[2] then
    delivered, read = string.match(known[2], '^(%d+) (%d+) ')
    delivered, read = tonumber(delivered), tonumber(read)
  end
  local new_delivered = math.max(delivered, offset)
  local new_read = status == 'read' and math.max(read, offset) or read
  if new_delivered == delivered and new_read == read then return false end
  if known[1] ~= epoch then
    redis.call('DEL', marks)
    redis.call('HSET', marks, 'e', epoch)
  end
  redis.call('HSET', marks, user, string.format('%.0f %.0f %s', new_delivered, new_read, redis.call('TIME')[1]))
  redis.call('PEXPIRE', marks, ARGV[2])
  local max_marks = tonumber(ARGV[3])
  if redis.call('HLEN', marks) > max_marks + 1 then trim_marks(marks, max_marks) end
  return true
end

local function append(key, arg)
  local meta, log = KEYS[key], KEYS[key + 1]
  local channel, payload, tag, author = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
  local max_entries, max_bytes = tonumber(ARGV[arg + 5]), tonumber(ARGV[arg + 6])
  local dedup = ARGV[arg + 9] ~= '0' and KEYS[key + 3]

  local top = redis.call('HMGET', meta, 'e', 'o', 'g', 'b')
  local epoch, offset, prev, bytes = top[1], tonumber(top[2] or 0), top[3], tonumber(top[4] or 0)
  if dedup then
    local known = redis.call('GET', dedup)
    if known then
      local first = cmsgpack.unpack(known)
      if first[1] == epoch then return first end
    end
  end
  if not epoch then
    epoch, prev, bytes = ARGV[1], '0', 0
    redis.call('HSET', meta, 'e', epoch, 'o', 0, 'g', '0')
    redis.call('DEL', log)
  end

  offset = offset + 1
  if max_entries > 0 then
    redis.call('XADD', log, id(offset), 'd', payload, 'p', prev, 'g', tag)
    local length = redis.call('XLEN', log)
    if length == 1 then bytes = 0 end -- the log had expired
    bytes = bytes + #payload
    if length > max_entries + TRIM_SLACK then bytes = trim(log, length - max_entries, bytes) end
    if bytes > max_bytes then bytes = trim(log, nil, bytes, max_bytes) end
    redis.call('PEXPIRE', log, ARGV[arg + 7])
    redis.call('HSET', meta, 'o', id(offset):sub(1, -3), 'g', tag, 'b', bytes)
  else
    redis.call('HSET', meta, 'o', id(offset):sub(1, -3), 'g', tag, 'b', 0)
    redis.call('DEL', log)
  end
  redis.call('PEXPIRE', meta, ARGV[arg + 8])
  local position = { epoch, offset, tag }
  if dedup then redis.call('SET', dedup, cmsgpack.pack(position), 'PX', ARGV[arg + 9]) end
  -- The message is in the log whatever becomes of the mark.
  if author ~= '' then pcall(move_mark, KEYS[key + 2], epoch, author, 'read', offset) end
  redis.call('PUBLISH', channel, '\1' .. cmsgpack.pack({ 1, epoch, offset, prev, tag, payload }))
  return position
end

local function advance(key, arg)
  local top, offset = redis.call('HMGET', KEYS[key], 'e', 'o'), tonumber(ARGV[arg + 5])
  if not top[1] or offset > tonumber(top[2]) then return -1 end
  if not move_mark(KEYS[key + 1], top[1], ARGV[arg + 3], ARGV[arg + 4], offset) then return -1 end
  if ARGV[arg + 2] ~= '' then redis.call('PUBLISH', ARGV[arg + 1], ARGV[arg + 2]) end
  return 1
end

local replies = {}
local key, arg = 1, 4
while ARGV[arg] do
  local ok, reply
  if ARGV[arg] == 'p' then
    ok, reply = pcall(redis.call, 'PUBLISH', ARGV[arg + 1], ARGV[arg + 2])
    if ok then reply = 0 end
    arg = arg + 3
  elseif ARGV[arg] == 'm' then
    ok, reply = pcall(advance, key, arg)
    key = key + 2
    arg = arg + 6
  else
    ok, reply = pcall(append, key, arg)
    key = key + (ARGV[arg + 9] ~= '0' and 4 or 3)
    arg = arg + 10
  end
  if not ok and type(reply) ~= 'table' then -- Redis raises tables or, before 7.2, text
    reply = redis.error_reply(string.match(reply, '^%u+ ') and reply or 'ERR ' .. reply)
  end
  replies[#replies + 1] = reply
end
return replies
