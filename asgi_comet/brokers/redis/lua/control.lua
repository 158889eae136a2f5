-- What the scripts of the control log begin with, after `common`.
-- Fields of its record: e epoch, s top, f first, l generation. A row: ms, id, sender, entry
local DAY = 86400000
local function position(record, log, gen, fresh)         -- where the log stands, after a loss under another epoch
  local r = redis.call('HMGET', record, 'e', 's', 'f', 'l')
  local epoch, top, first = r[1], tonumber(r[2] or '0'), tonumber(r[3] or '1')
  local lost = redis.call('LLEN', log) ~= top + 1 - first
  if lost then
    redis.call('DEL', log)
    first = top + 1
  end
  if lost or not epoch or r[4] ~= gen then
    epoch = fresh
    redis.call('HSET', record, 'e', epoch, 's', top, 'f', first, 'l', gen)
    redis.call('PEXPIRE', record, DAY)
    redis.call('PEXPIRE', log, DAY)
  end
  return epoch, top, first
end
