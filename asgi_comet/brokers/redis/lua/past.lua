-- Names of own channels. pc: NAME -> 'KIND,SIZE' of a live channel or a full one; ':NAME' -> ms when the last one of that name
--   ended: no name begins with ':'. An ended channel is forgotten after its linger time, the name is not.
local PAST, SPARE = 1000, 100
local function own_name(full) return string.match(full, '^~[^~]*~(.*)$') end
local function pass(process, pc, full)                   -- an own channel has ended
  local p, name = redis.call('HMGET', process, 's', 'x'), own_name(full)
  if not p[1] or p[2] then return end                    -- its process has closed
  redis.call('HDEL', pc, name)
  redis.call('HSET', pc, ':' .. name, now)
  if redis.call('HLEN', pc) <= PAST then return end
  local all, past = redis.call('HGETALL', pc), {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == ':' then past[#past + 1] = { all[i], tonumber(all[i + 1]) } end
  end
  if #past <= PAST then return end
  table.sort(past, function(one, other) return one[2] < other[2] end)
  for i = 1, #past - PAST + SPARE do redis.call('HDEL', pc, past[i][1]) end
end
