-- tell_all: an entry of the control log, for all workers. KEYS: record, log, workers, lin, li of the entry, act.
-- ARGV: id, sender, entry, topic, publish command, durable, fresh generation, fresh epoch, most entries,
--   name of an event that lasts ('': none), event, when an entry that is told again was added first ('': now)
local gen = lineage(KEYS[4], ARGV[7], ARGV[6])
local epoch, top, first = position(KEYS[1], KEYS[2], gen, ARGV[8])
if redis.call('EXISTS', KEYS[5]) == 1 then return redis.call('ZRANGE', KEYS[3], 0, -1) end   -- its own retry
while first <= top do
  local age = now - tonumber(string.match(redis.call('LINDEX', KEYS[2], 0), '^%d+'))
  if top + 1 - first < tonumber(ARGV[9]) and age < DAY then break end
  redis.call('LPOP', KEYS[2])
  first = first + 1
end
local at = ARGV[12] ~= '' and tonumber(ARGV[12]) or now
local row = string.format('%.0f %s %s %s', at, ARGV[1], ARGV[2], ARGV[3])
redis.call('RPUSH', KEYS[2], row)
redis.call('HSET', KEYS[1], 's', top + 1, 'f', first)
redis.call('PEXPIRE', KEYS[1], DAY)
redis.call('PEXPIRE', KEYS[2], DAY)
redis.call('SET', KEYS[5], '1', 'PX', 120000)
if ARGV[10] ~= '' then redis.call('HSET', KEYS[6], ARGV[10], ARGV[11]) end
redis.call(ARGV[5], ARGV[4], string.format('%s %.0f %s', epoch, top + 1, row))
return redis.call('ZRANGE', KEYS[3], 0, -1)
